"""`python -m genba` and the `genba` command."""

import sys

from genba.ui.cli.app import run_command


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
