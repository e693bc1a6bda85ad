"""A device on a bad day, from end to end; anybody can run it against a release of their own:

    python -m tests.e2e.edge_story RELEASE --key edge-key.pub.pem --python DEVICE/bin/python

The device is another environment that has only the edge runtime. Its controller is simulated over
OPC UA or Modbus (rows of chance within what the model has seen), its broker is away for
an hour of simulated time, its process is killed, its disk is full, its release is changed. Each
answer that reaches the other side is compared with the model asked directly.
"""

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genba.core.resolve import resolve
from genba.edge.assembly import Assembly
from genba.edge.clocks import SystemClock
from genba.edge.links import Reading
from genba.edge.links.settings import parse_links
from genba.edge.memory import Memory
from genba.edge.predict import Predictor
from genba.edge.release import Release, open_release
from genba.edge.trust import Trust, add_key
from genba.testing.broker import free_port
from genba.testing.broker_odd import Manners, OddBroker

PATIENCE_S = 90.0
HOUR_MS = 3_600_000


@dataclass
class Told:
    """What the story found out."""

    shown: int = 0
    taken: int = 0
    delivered: int = 0
    twice: int = 0
    kills: int = 0
    down_ms: int = 0
    compared: int = 0
    worst: float = 0.0
    refused: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Keep a line, and show it."""
        self.lines.append(text)
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


class Story:
    """One device with its plant."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.told = Told()
        self.from_ms = time.time_ns() // 1_000_000
        self.clock = SystemClock(given.scale, self.from_ms)
        self.state = given.work / "state"
        self.disk = given.small_disk or given.work
        self.buffer = self.disk / "buffer.db"
        self.release = self._open()
        self.interface = self.release.interface
        self.step_ms = self.interface.step_ms or 60_000
        self.entities = self.interface.entities or ("machine",)
        self.columns = [one.name for one in self.interface.fields]
        self.broker = OddBroker(Manners(hang_up_every=41)).start()
        self.plc: Any = resolve("simulator", given.plc)(self.entities, self.columns, free_port())
        self.rows: dict[tuple[str, int], Mapping[str, float | None]] = {}
        self.chance = random.Random(given.seed)
        self.process: subprocess.Popen[str] | None = None
        self.log = given.work / "device.log"

    def _open(self) -> Release:
        here = self.given.work / "factory"
        here.mkdir(parents=True)
        add_key(here, self.given.key.read_bytes())
        return open_release(
            self.given.release, Trust.at(here), Memory.at(here), time.time_ns() // 1_000_000
        )

    def device(self, *argv: object) -> "subprocess.CompletedProcess[str]":
        """Run a command of the device until it ends."""
        return subprocess.run(
            [*self.given.python, "-m", "genba.edge.cli", *map(str, argv), "--state", self.state],
            capture_output=True, text=True, check=False, env=self._environment(),
        )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        kept = {"PATH": os.environ["PATH"], "HOME": str(self.given.work), "OMP_NUM_THREADS": "1"}
        return kept | ({"PYTHONPATH": str(self.given.site)} if self.given.site else {})

    def links(self) -> Path:
        """Write the link file and return it."""
        path: Path = self.given.work / "links.toml"
        path.write_text(
            self.plc.link(self.step_ms // 20)
            + f'[links.plant]\nkind = "mqtt"\naddress = "{self.broker.address}"\n'
            'answers = "genba/{line}/{entity}"\n[buffer]\ndays = 10\nmost_mib = 64\n'
        )
        return path

    def start(self, folder: Path | None = None) -> None:
        """Begin to serve."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*self.given.python, "-m", "genba.edge.cli", "serve", folder or self.given.release,
                 "--links", self.links(), "--buffer", self.buffer, "--state", self.state,
                 "--time-scale", str(self.given.scale), "--time-from", str(self.from_ms)],
                stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment(),
            )  # fmt: skip

    def kill(self) -> None:
        """Kill it without a word, and begin again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        self.told.kills += 1
        self.start()

    def step(self, wait: bool = True) -> None:
        """Let the controller show its next row of every machine."""
        now_ms = self.clock.now_ms()
        next_ms = (now_ms // self.step_ms + 1) * self.step_ms
        self.clock.wait(threading.Event(), next_ms - now_ms)
        for entity in self.entities:
            values = {one.name: self.number(one) for one in self.interface.fields}
            self.rows[entity, next_ms] = values
            self.plc.show(entity, values, next_ms)
            self.told.shown += 1
        if wait:
            self.clock.wait(threading.Event(), self.step_ms // 4)

    def number(self, one: Any) -> float | None:
        """Return a number within what the model has seen; sometimes none."""
        if self.chance.random() < 0.02:
            return None
        span = one.usual if one.usual.max is not None else one.seen
        low, high = span.min or 0.0, span.max if span.max is not None else 1.0
        return float(np.float32(self.chance.uniform(low, high)))

    def until(self, what: Callable[[], bool], why: str) -> None:
        """Wait for something; a device that ended is a failure at once."""
        end = time.monotonic() + PATIENCE_S
        while not what():
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > end:
                raise AssertionError(f"{why}\n{self.log.read_text()[-3_000:]}")
            time.sleep(0.05)

    def answers(self) -> list[dict[str, Any]]:
        """Return everything that reached the other side, in the order in which it came."""
        return [json.loads(payload) for _, payload in list(self.broker.inbox)]

    def health(self) -> dict[str, Any]:
        """Return what the device says of itself."""
        found: dict[str, Any] = json.loads((self.state / "health.json").read_text())
        return found

    def run(self) -> Told:
        """Tell all of it."""
        try:
            self.plc.start()
            self.begin()
            self.an_hour_without_a_broker()
            self.killed()
            if self.given.small_disk:
                self.a_full_disk()
            self.changed_releases()
            self.end()
        finally:
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
                self.process.communicate()
            self.broker.stop()
            self.plc.stop()
        self.compare()
        return self.told

    def begin(self) -> None:
        """Trust the key, verify, and answer the first rows."""
        assert self.device("verify", self.given.release).returncode == 3, "nobody is trusted yet"
        done = self.device("trust", self.given.key)
        assert done.returncode == 0, done.stderr
        done = self.device("verify", self.given.release)
        assert done.returncode == 0, done.stderr
        self.start()
        self.until(lambda: (self.state / "health.json").exists(), "it does not serve")
        self.step()
        self.until(lambda: len(self.broker.inbox) >= len(self.entities), "no answer came")
        for _ in range(4):
            self.step()
        self.told.say(f"✓ verified, tested, serving: {len(self.broker.inbox)} answers")

    def an_hour_without_a_broker(self) -> None:
        """Take the broker away for an hour of simulated time; kill the device in the middle."""
        self.broker.stop()
        gone_ms, had = self.clock.now_ms(), len(self.broker.inbox)
        while self.clock.now_ms() - gone_ms < HOUR_MS:
            self.step()
            if self.clock.now_ms() - gone_ms > HOUR_MS // 2 and not self.told.kills:
                self.kill()
        self.told.down_ms = self.clock.now_ms() - gone_ms
        assert len(self.broker.inbox) == had
        self.broker.start()
        self.until(lambda: len(self.broker.inbox) > had, "nothing came after the hour")
        self.told.say(f"✓ the broker was away for {self.told.down_ms / 60_000:.0f} minutes")

    def killed(self) -> None:
        """Kill the device at moments of chance."""
        for _ in range(self.given.kills):
            self.step(wait=False)
            time.sleep(self.chance.uniform(0.0, 0.5))
            self.kill()
            with suppress(FileNotFoundError):
                (self.state / "health.json").unlink()
            self.until(lambda: (self.state / "health.json").exists(), "it does not serve")
        self.told.say(f"✓ killed {self.told.kills} times")

    def a_full_disk(self) -> None:
        """Fill the disk that the buffer is on, while the broker is away; then make room."""
        self.broker.stop()
        filler = self.disk / "somebody-else"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4_096))
        said = 0
        for _ in range(400):
            self.step(wait=False)
            said = self.health()["refused"]
            if said:
                break
        assert said, "the disk was never full"
        self.kill()  # also now
        self.step()
        filler.unlink()
        self.broker.start()
        self.until(lambda: not self.health()["refused"], "it holds answers back")
        self.step()
        self.told.say(f"✓ a full disk: it said so, {said} readings were held back")

    def changed_releases(self) -> None:
        """Change a bit of every file, one after the other; and offer an older release."""
        copy = self.given.work / "copy"
        files = [p for p in sorted(self.given.release.rglob("*")) if p.is_file()]
        for path in files:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self.given.release, copy)
            changed = copy / path.relative_to(self.given.release)
            data = bytearray(changed.read_bytes())
            data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
            changed.write_bytes(data)
            self._refuses(copy)
        self.told.say(f"✓ a bit changed in each of {len(files)} files: {self.told.refused}")
        if self.given.older:
            self._refuses(self.given.older, "G674")
            self.told.say("✓ the older release is refused")

    def _refuses(self, folder: Path, code: str = "") -> None:
        done = self.device("serve", folder, "--links", self.links(), "--json")
        found = json.loads(done.stdout)["problem"]["code"]
        assert done.returncode == 3, done.stdout
        assert "Traceback" not in done.stderr
        assert not code or found == code
        self.told.refused[found] = self.told.refused.get(found, 0) + 1

    def end(self) -> None:
        """Tell it to stop; it sends what waits and says what it did."""
        assert self.process is not None
        self.until(lambda: not self._waiting(), "answers still wait")
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, said
        assert "was served" in said

    def _waiting(self) -> int:
        pending: dict[str, int] = self.health()["buffer"]["pending"]
        return sum(n for kind, n in pending.items() if kind.startswith("answer/"))

    def compare(self) -> None:
        """Count: what was taken and did not come; and ask the model itself."""
        mark = self.health()["buffer"]
        (kind,) = (k for k in mark["sequence"] if k.startswith("answer/"))
        found = {body["sequence"]: body for body in self.answers()}
        self.told.taken = mark["sequence"][kind]
        self.told.delivered = len(found)
        self.told.twice = len(self.broker.inbox) - len(found)
        lost = set(range(1, self.told.taken + 1)) - found.keys()
        assert not lost, f"{len(lost)} acknowledged records are lost: {sorted(lost)[:9]}"
        # By policy, a full disk may cost samples for labelling, never an answer.
        self.told.dropped = mark["dropped"]
        assert not any(what.startswith(kind) for what in mark["dropped"]), mark["dropped"]
        assert len({body["id"] for body in found.values()}) == len(found)
        self._ask([found[n] for n in sorted(found)])
        self.told.say(
            f"✓ {self.told.shown} rows were shown, {self.told.taken} taken, "
            f"{self.told.delivered} delivered ({self.told.twice} of them twice), 0 lost; "
            f"dropped by policy: {self.told.dropped or 'nothing'}; {self.told.compared} answers "
            f"are the model's (largest difference {self.told.worst:.1g})"
        )

    def _ask(self, bodies: list[dict[str, Any]]) -> None:
        links = parse_links(self.plc.link())
        assembly = Assembly(self.release.package.manifest, self.interface, links)
        model = Predictor(self.release.package)
        for body in bodies:
            place = (body["entity"], body["time_ms"])
            if place not in self.rows or body["action"] != "model":
                continue
            reading = Reading(
                id=body["id"], source=links.leader, entity=body["entity"],
                time_ms=body["time_ms"], received_ms=0, values=self.rows[place],
            )  # fmt: skip
            sample = assembly.add(reading).sample
            assert sample is not None
            assert sample.tensors is not None
            wanted = model.predict(sample.tensors)
            for name, value in body["outputs"].items():
                told = np.asarray(value, dtype=np.float64)
                off = np.abs(told - np.asarray(wanted[name][0], dtype=np.float64)).max()
                self.told.worst = max(self.told.worst, float(off))
            self.told.compared += 1


def main(argv: list[str]) -> Told:
    """Tell the story with what the command line says."""
    parser = argparse.ArgumentParser(prog="edge_story", description=__doc__)
    parser.add_argument("release", type=Path)
    parser.add_argument("--key", type=Path, required=True, help="public key of the factory, PEM")
    parser.add_argument("--older", type=Path, help="a release with a lower number")
    parser.add_argument("--python", default=sys.executable, help="of the device, with options")
    parser.add_argument("--site", type=Path, help="PYTHONPATH of the device")
    parser.add_argument("--work", type=Path, required=True, help="a new folder")
    parser.add_argument("--small-disk", type=Path, help="a folder on a disk of some MiB")
    parser.add_argument("--plc", choices=("opcua", "modbus"), default="opcua")
    parser.add_argument("--scale", type=float, default=600.0, help="how much faster time goes")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    given.python = shlex.split(given.python)
    given.work.mkdir(parents=True, exist_ok=True)
    return Story(given).run()


if __name__ == "__main__":
    main(sys.argv[1:])
