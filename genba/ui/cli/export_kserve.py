"""A container build context and an InferenceService manifest for one line.

The manifest follows the API `serving.kserve.io/v1beta1`: a predictor with a container of one's own
is named `kserve-container` and says by the variable PROTOCOL what it speaks (KServe 0.21,
pkg/constants and pkg/apis/serving/v1beta1). It is written as JSON, which `kubectl` takes as well.
"""

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from genba import __version__
from genba.catalog import EXTRAS, LIBRARIES
from genba.core.io import write_durable
from genba.core.problem import Problem
from genba.core.values import Manifest
from genba.edge.package import CARD_FILE
from genba.stages.export import export_home, in_service
from genba.store.home import Store

MANIFEST_FILE: Final = "inferenceservice.json"
_TEMPLATE: Final = Path(__file__).parents[1] / "templates" / "kserve"
_COPIED: Final = ("start.py", "ready.py")
_CONTAINER: Final = "kserve-container"
_WHEELS: Final = "/opt/genba/wheel"  # in the image
_USER: Final = 10_001
_PORT: Final = 8_080
_HOME: Final = "/var/lib/genba"
_LONGEST_NAME: Final = 63  # of a name or the value of a label in Kubernetes
_SERVER_MIB: Final = 128  # measured: 113 MiB resident, no package, 2-core EPYC, 2026-11-22
_ROOM: Final = 2  # times what was measured: requests and captures that wait need memory as well
_NAME: Final = re.compile(r"^[A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What is to be written.

    Attributes:
        line: Its name.
        folder: Where to.
        image: Its name; derived from the stable package when empty.
        wheel: Of Genba; from the package index when None.
        force: Replace what is there.
    """

    line: str
    folder: Path
    image: str = ""
    wheel: Path | None = None
    force: bool = False


def write_context(store: Store, context: Context) -> dict[str, Any]:
    """Write Dockerfile, home, requirements and manifest; return what a person needs to know.

    Raises:
        Problem: G111 when the folder is there, G502 when nothing is in service, G605 for a package
            without this home's signature, G768 for a wheel that is none.
    """
    in_service(store, context.line)
    _check_wheel(context.wheel)
    _make_folder(context)
    folder = context.folder.absolute()
    manifests = export_home(store, context.line, folder / "home")
    _remove_lock_files(folder / "home")
    for name in _COPIED:
        write_durable(folder / name, (_TEMPLATE / name).read_bytes())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    docker = (
        (_TEMPLATE / "Dockerfile")
        .read_text(encoding="utf-8")
        .replace("PYTHON-slim", f"{python}-slim")
    )
    write_durable(folder / "Dockerfile", docker.encode())
    _write_requirements(folder / "wheel", manifests.values(), context.wheel)
    stable = next(iter(manifests))
    image = context.image or f"{kubernetes_name(context.line)}:{stable[:12]}"
    service = inference_service(context.line, image, manifests, _memory(store, manifests))
    write_durable(folder / MANIFEST_FILE, (json.dumps(service, indent=2) + "\n").encode())
    resources = service["spec"]["predictor"]["containers"][0]["resources"]
    return {
        "packages": list(manifests),
        "image": image,
        "memory": resources["requests"]["memory"],
        "secret": secret_name(context.line),
        "manifest": MANIFEST_FILE,
    }


def inference_service(
    line: str, image: str, manifests: Mapping[str, Manifest], memory_mib: float
) -> dict[str, Any]:
    """Return the manifest.

    Args:
        line: Name of the line.
        image: Of the container.
        manifests: Of the packages in service by id, the stable one first.
        memory_mib: That the packages were measured to need, together.
    """
    stable = next(iter(manifests))
    threads = max(int(m.engine.settings.get("threads", 1)) for m in manifests.values())
    memory = round(_ROOM * memory_mib + _SERVER_MIB)
    container = {
        "name": _CONTAINER,
        "image": image,
        "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
        "env": [
            {"name": "PROTOCOL", "value": "v2"},
            {
                "name": "GENBA_SERVE_KEY",
                "valueFrom": {"secretKeyRef": {"name": secret_name(line), "key": "key"}},
            },
        ],
        "readinessProbe": {
            "exec": {"command": ["python", "/opt/genba/ready.py"]},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": _PORT},
            "initialDelaySeconds": 30,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "resources": {
            "requests": {"cpu": str(threads), "memory": f"{memory}Mi"},
            "limits": {"cpu": str(threads + 1), "memory": f"{_ROOM * memory}Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "home", "mountPath": _HOME},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108  # of the container, its own
        ],
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": kubernetes_name(line),
            "labels": {
                "app.kubernetes.io/name": kubernetes_name(line),
                "app.kubernetes.io/managed-by": "genba",
                "app.kubernetes.io/version": __version__,
                "genba.io/package": stable[:_LONGEST_NAME],
            },
            "annotations": {"genba.io/packages": ",".join(manifests)},
        },
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "containers": [container],
                "securityContext": {"fsGroup": _USER},
                "volumes": [
                    {"name": "home", "emptyDir": {}},
                    {"name": "scratch", "emptyDir": {}},
                ],
            }
        },
    }


def kubernetes_name(line: str) -> str:
    """Return the name of a line as Kubernetes takes it.

    Example:
        >>> kubernetes_name("Wind_farm.2")
        'wind-farm-2'
        >>> kubernetes_name("3d")
        'line-3d'
    """
    name = re.sub(r"[^a-z0-9]+", "-", line.lower()).strip("-")
    name = name if name[:1].isalpha() else f"line-{name}"
    return name[:_LONGEST_NAME].rstrip("-")


def secret_name(line: str) -> str:
    """Return the name of the Secret that holds the key of the server."""
    return f"{kubernetes_name(line)[: _LONGEST_NAME - 4]}-key"


def _make_folder(context: Context) -> None:
    folder = context.folder
    if folder.exists() and any(folder.iterdir()):
        if not context.force:
            raise Problem(
                "G111",
                f"{folder} is already there.",
                where=str(folder),
                tries=[f"genba export kserve {context.line} --to {folder} --force"],
            )
        for name in ("home", "wheel"):  # what is not replaced file by file
            shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "wheel").mkdir(parents=True, exist_ok=True)


def _check_wheel(wheel: Path | None) -> None:
    if wheel is None or (wheel.is_file() and wheel.suffix == ".whl"):
        return
    raise Problem(
        "G768",
        f"{wheel} is no wheel.",
        where=f"--wheel {wheel}",
        why="The image installs Genba from a file that ends in .whl, or from the package index.",
        tries=["pip wheel --no-deps genba", "genba explain G768"],
    )


def _remove_lock_files(home: Path) -> None:
    """Leave one file of the database: what SQLite keeps beside it belongs to who has it open."""
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (home / name).unlink(missing_ok=True)


def _write_requirements(folder: Path, manifests: Iterable[Manifest], wheel: Path | None) -> None:
    libraries = {LIBRARIES.get(m.engine.name, "") for m in manifests}
    extras = sorted(EXTRAS[library] for library in libraries if library in EXTRAS)
    roots = ["genba", *(library for library in libraries if library)]
    pinned = pins(roots)
    extra = f"[{','.join(extras)}]" if extras else ""
    if wheel is not None:
        write_durable(folder / wheel.name, wheel.read_bytes())
        pinned = [f"{_WHEELS}/{wheel.name}{extra}", *pinned]
    else:
        pinned = [f"genba{extra}=={__version__}", *pinned]
    write_durable(folder / "requirements.txt", ("\n".join(pinned) + "\n").encode())


def pins(roots: Iterable[str]) -> list[str]:
    """Return everything that the named distributions need here, with the versions installed here.

    Example:
        >>> [pin.partition("==")[0] for pin in pins(["rich"])][:2]
        ['markdown-it-py', 'mdurl']
    """
    found: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        plain = re.sub(r"[-_.]+", "-", name).lower()
        if plain in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            found[plain] = ""  # for another system
            if plain == "genba":  # a checkout that is not installed
                waiting += _needed_by_checkout()
            continue
        found[plain] = distribution.version
        waiting += [
            match[0]
            for wanted in distribution.requires or ()
            if "extra ==" not in wanted and (match := _NAME.match(wanted))
        ]
    found.pop("genba", None)
    return [f"{name}=={version}" for name, version in sorted(found.items()) if version]


def _needed_by_checkout() -> list[str]:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return [match[0] for wanted in project["dependencies"] if (match := _NAME.match(wanted))]


def _memory(store: Store, manifests: Mapping[str, Manifest]) -> float:
    """Return how much memory the packages were measured to need, in MiB."""
    return sum(_measured(store, manifest) for manifest in manifests.values())


def _measured(store: Store, manifest: Manifest) -> float:
    """Return what the card says; of a package without one, the size of its files."""
    size_mib = sum(file.size for file in manifest.files.values()) / 2**20
    if CARD_FILE not in manifest.files:
        return size_mib
    card = json.loads(store.blobs.read(manifest.files[CARD_FILE].digest))
    try:
        return float(card["runtime"]["measures"]["value"]["memory_mib"]["value"])
    except (KeyError, TypeError, ValueError):
        return size_mib
