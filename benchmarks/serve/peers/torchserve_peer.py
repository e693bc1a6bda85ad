"""TorchServe: packs both models into its archives and starts it in the foreground."""

# mypy: ignore-errors
# ruff: noqa: ANN201

import json
import os
import subprocess
import sys
from pathlib import Path

from sessions import BATCH, PORT, SHAPES, WAIT_MS

HERE = Path(__file__).parent


def main():
    """Become the server."""
    folder = Path(sys.argv[1])
    programs = Path(sys.executable).parent
    models = {}
    for model in SHAPES:
        pack = [str(programs / "torch-model-archiver"), "--model-name", model, "--version", "1.0"]
        pack += ["--handler", str(HERE / "torchserve_handler.py")]
        pack += [
            "--extra-files",
            str(HERE / "sessions.py"),
            "--export-path",
            str(folder),
            "--force",
        ]
        subprocess.run(pack, check=True)
        own = {"defaultVersion": True, "marName": f"{model}.mar", "minWorkers": 1, "maxWorkers": 1}
        own |= {"batchSize": BATCH[model], "maxBatchDelay": int(WAIT_MS), "responseTimeout": 60}
        models[model] = {"1.0": own}
    lines = [
        f"{name}_address=http://127.0.0.1:{PORT + n}"
        for n, name in enumerate(("inference", "management", "metrics"))
    ]
    lines += ["disable_token_authorization=true", "load_models=all", f"model_store={folder}"]
    lines += ["job_queue_size=1000", "max_request_size=20000000", "max_response_size=20000000"]
    lines += ["install_py_dep_per_model=false", "enable_envvars_config=false"]
    lines += [f"models={json.dumps(models)}"]
    config = folder / "config.properties"
    config.write_text("\n".join(lines) + "\n")
    command = [str(programs / "torchserve"), "--start", "--foreground", "--disable-token-auth"]
    command += ["--ncs", "--ts-config", str(config), "--model-store", str(folder)]
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    quiet = folder / "log4j2.xml"
    quiet.write_text(QUIET)
    command += ["--log-config", str(quiet)]
    os.chdir(folder)
    os.execve(command[0], command, {**os.environ, "PATH": path})


# Its default writes a line and four metrics per request to three files.
QUIET = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration><Appenders><Console name="out" target="SYSTEM_OUT"><PatternLayout pattern="%m%n"/>
</Console></Appenders><Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""

if __name__ == "__main__":
    main()
