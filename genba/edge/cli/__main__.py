"""`python -m genba.edge.cli` is `genba-edge`."""

from genba.edge.cli.app import main

main()
