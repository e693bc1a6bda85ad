"""Exit with 0 when the server of this container can answer; for HEALTHCHECK and readiness probes.

A probe of Kubernetes cannot send a key that is a secret, so the question is asked in the container.
"""

import http.client
import os
import sys


def main() -> int:
    """Ask once."""
    port = int(os.environ.get("GENBA_PORT", "8080"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    key = os.environ.get("GENBA_SERVE_KEY", "")
    try:
        connection.request("GET", "/v2/health/ready", headers={"Authorization": f"Bearer {key}"})
        return 0 if connection.getresponse().status == http.client.OK else 1
    except OSError:
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
