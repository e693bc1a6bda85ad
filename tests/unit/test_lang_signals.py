"""Ctrl-C after a language model was open: a request to stop, not a segmentation fault."""

import subprocess
import sys

_PROGRAM = """
import os, signal, time
import numpy as np
from genba.core.resolve import resolve
from genba.core.talk import Ask
from genba.engines.talking import ask_and_wait
from genba.testing.tiny_talk import tiny_talk

heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
engine = resolve("engine", "openvino-talk")(tiny_talk(), {"weights": "f32"})
ask_and_wait(engine, Ask(tokens=np.array([1, 40, 41]), most=4, schema='{"type": "integer"}'))
os.kill(os.getpid(), signal.SIGINT)
engine.close()
os.kill(os.getpid(), signal.SIGINT)
time.sleep(0.1)
assert len(heard) == 2
"""


def test_a_signal_is_heard_after_a_model_was_open() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
