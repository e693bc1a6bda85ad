"""Language models: bases, tuning, and the forms they are exported in."""

import os

# Threads of torch that wait for each other sleep instead of spinning: measured with two busy
# neighbours on two cores 267 matrix products a second instead of 152. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
