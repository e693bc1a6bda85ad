"""One file per inference runtime, and how they are measured.

Two runtimes report to their makers, and both have to be told before their first import, hence
here. Importing `onnxruntime` queues an event with a description of the machine for upload and
leaves an identifier in the home directory, unless the environment says otherwise;
`disable_telemetry_events` comes too late for that one. Importing `openvino` sends an event and
leaves an identifier too, unless its telemetry package is absent. `None` in `sys.modules` is
Python's way to say that a module is absent; OpenVINO then uses its own silent stand-in.
"""

import os
import sys
from types import ModuleType
from typing import cast

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
cast(dict[str, ModuleType | None], sys.modules).setdefault("openvino_telemetry", None)
