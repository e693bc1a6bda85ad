"""From the name of a target to the device behind it: here, probed, or of the catalogue."""

import time
from functools import cache
from pathlib import Path
from typing import Any, Final

from genba.core.codec import encode, nearest
from genba.core.problem import Problem
from genba.core.protocols import Device, Engine, JsonObject, Tensors
from genba.core.resolve import names, resolve
from genba.core.values import Measure
from genba.store.home import home_path
from genba.targets.cataloged import catalog_names, cataloged
from genba.targets.devices import CatalogedDevice, ProbedDevice, Target, energy_of
from genba.targets.probe import probe
from genba.targets.profile import FOLDER, Profile, profile_path, read_profile

HERE: Final = "this-machine"


def open_target(name: str, home: Path | None = None) -> Target:
    """Return the device that a line file calls `name`.

    A profile that was measured wins over the catalogue, so a device becomes real by being probed.

    Args:
        name: As in `[target] device`.
        home: Where profiles are; $GENBA_HOME or ./.genba when None.

    Raises:
        Problem: G612 when nothing has that name, G616 when its profile was altered.

    Example:
        >>> open_target("raspberry-pi-5").measurable
        False
    """
    if name in names("target"):
        return _own(name, home_path(home))
    path = profile_path(home_path(home), name)
    if path is not None:
        return ProbedDevice(read_profile(path, home_path(home)))
    if name in catalog_names():
        return CatalogedDevice(cataloged(name))
    raise _unknown(name, home)


def target_names(home: Path | None = None) -> dict[str, str]:
    """Return the name of every target and what it is: "here", "probed" or "catalog"."""
    found = dict.fromkeys(catalog_names(), "catalog")
    folder = home_path(home) / FOLDER
    found |= dict.fromkeys(sorted(path.stem for path in folder.glob("*.toml")), "probed")
    return {**dict.fromkeys(names("target"), "here"), **found, HERE: "here"}


class _Here:
    """A target that measures in this process, with what the probe found of this machine."""

    def __init__(self, device: Device, name: str, profile: Profile) -> None:
        self.name, self.profile = name, profile
        self.reach: tuple[str, ...] = ()
        self.measurable = True
        self.fits = device.fits
        self._device = device

    def facts(self) -> JsonObject:
        """Return what the device says, and what is known of its energy."""
        meter = self.profile.meter
        return {
            **self._device.facts(),
            **({"external_meter": encode(meter)} if meter else {}),
        }

    def measure(self, engine: Engine, tensors: Tensors) -> dict[str, Measure]:
        """Measure an engine as the device does; a meter that was read beats an assumption."""
        found = dict(self._device.measure(engine, tensors))
        energy, cpu_ms = found.get("energy_mj"), found.get("cpu_ms")
        if energy and cpu_ms and energy.method == "modelled" and self.profile.meter is not None:
            found["energy_mj"] = energy_of(cpu_ms, self.profile)
        return found


def _own(name: str, home: Path) -> Target:
    """Return a target of the catalogue of kinds, with its profile."""
    path, now = profile_path(home, name), unprobed(name)
    profile = read_profile(path, home) if path is not None else now
    if _machine(profile) != _machine(now):  # the home was carried to another machine
        profile = now
    kind: Any = resolve("target", name)
    return as_target(kind(), name, profile)


def as_target(device: Device, name: str, profile: Profile | None = None) -> Target:
    """Return a device that measures in this process as a target with a profile.

    Args:
        device: A device of this or another package.
        name: What the line file calls it.
        profile: What was probed of it; what is known without measuring when None.
    """
    return _Here(device, name, profile or unprobed(name))


def _machine(profile: Profile) -> tuple[object, ...]:
    return profile.processor, profile.architecture, profile.cores, profile.instructions


@cache
def unprobed(name: str) -> Profile:
    """Return what is known of this machine without measuring: no rates."""
    machine = probe()
    return Profile(
        name=name,
        source="measured",
        dated=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        processor=machine.processor,
        architecture=machine.architecture,
        cores=machine.cores,
        memory_mib=machine.memory_mib,
        instructions=machine.instructions,
        system=machine.system,
    )


def _unknown(name: str, home: Path | None) -> Problem:
    known = list(target_names(home))
    near = nearest(name, known)
    return Problem(
        "G612",
        f"There is no target {name!r}" + (f"; did you mean {near}?" if near else "."),
        where="target.device",
        why="It is not this machine, no profile in the home has that name, and neither has any "
        "device of the catalogue.",
        tries=[
            f'device = "{near or HERE}"',
            "genba targets list",
            "genba targets probe NAME --reach 'ssh user@host'",
        ],
    )
