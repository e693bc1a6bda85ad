"""What pytest leaves alone where an optional library is missing: its modules cannot be imported."""

from importlib.util import find_spec

#: Written for Ray, which is installed only where `make test-all` makes an environment for it.
_RAY = ["genba/serve/ray/cluster.py", "tests/e2e/ray_story.py"]

collect_ignore = [] if find_spec("ray") else _RAY
