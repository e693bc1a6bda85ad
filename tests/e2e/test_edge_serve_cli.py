"""`genba-edge serve` as it is typed: an inspection line led by a camera's folder, and mistakes."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.edge.cli.app import run_command
from genba.edge.images import encode_png
from genba.stages import edge_export
from genba.stages.edge_export import Order, export_edge
from genba.store.oms import PUBLIC_FILE
from genba.testing.broker_odd import OddBroker
from tests.unit.edge_releases import add_image_package, pump_home

Typed = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("factory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_export, "assure", lambda *_, **__: None)  # minutes of its own
        export_edge(pump_home(root / "cameras", add_image_package), images(root))
        export_edge(pump_home(root / "pumps"), Order(line="pump", folder=root / "pump"))
    return root


def images(root: Path) -> Order:
    return Order(line="pump", folder=root / "camera")


@pytest.fixture
def typed(tmp_path: Path, factory: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    for home in ("cameras", "pumps"):
        path = factory / home / PUBLIC_FILE
        assert run_command(["trust", str(path), "--state", str(tmp_path / "state")]) == 0
    capsys.readouterr()

    def run(*argv: object) -> tuple[int, dict[str, Any]]:
        given = [*map(str, argv), "--state", str(tmp_path / "state"), "--json"]
        code = run_command(["serve", *given])
        return code, json.loads(capsys.readouterr().out)

    return run


def written(folder: Path, text: str) -> Path:
    path = folder / "links.toml"
    path.write_text(text)
    return path


def camera(folder: Path) -> Path:
    (folder / "in").mkdir(exist_ok=True)
    return written(
        folder,
        f'[links.camera]\nkind = "files"\nfolder = "{folder}/in"\nentity = "station 4"\n'
        f'settle_ms = 0\nevery_ms = 20\nanswers = "{folder}/answers.jsonl"\n',
    )


def picture(folder: Path, number: int) -> None:
    pixels = np.full((40, 60, 3), 10 * number, np.uint8)
    path = folder / "in" / f"{number}.png"
    path.write_bytes(encode_png(pixels))
    os.utime(path, ns=(number * 10**9, number * 10**9))


def test_a_camera_is_answered_and_a_restart_goes_on(
    tmp_path: Path, factory: Path, typed: Typed
) -> None:
    links = camera(tmp_path)
    for number in range(1, 4):
        picture(tmp_path, number)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG and no more")
    before = signal.getsignal(signal.SIGTERM)
    code, said = typed(factory / "camera", "--links", links, "--readings", 4)
    assert code == 0, said
    assert signal.getsignal(signal.SIGTERM) is before
    assert said["answers"] == {"model": 3, "abstain": 1}
    picture(tmp_path, 4)
    os.utime(tmp_path / "in" / "4.png")  # newer than all before
    code, said = typed(factory / "camera", "--links", links, "--readings", 1)
    assert (said["readings"], said["duplicates"]) == (1, 0)
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    bodies = [json.loads(line) for line in lines]
    assert [b["sequence"] for b in bodies] == [1, 2, 3, 4, 5]
    assert {b["entity"] for b in bodies} == {"station 4"}
    (broken,) = (b for b in bodies if b["action"] == "abstain")
    assert "G23" in broken["trips"][0]["detail"]
    assert all("score" in b["outputs"] for b in bodies if b["action"] == "model")


def test_a_camera_that_speaks_mqtt(tmp_path: Path, factory: Path, typed: Typed) -> None:
    with OddBroker() as broker:
        text = (
            f'[links.b]\nkind = "mqtt"\naddress = "{broker.address}"\ntopic = "camera/+"\n'
            'payload = "image"\nentity_level = 1\nanswers = "line/{line}/{entity}"\n'
        )
        links = written(tmp_path, text)
        spoken = threading.Thread(target=speak, args=(broker,))
        spoken.start()
        code, said = typed(factory / "camera", "--links", links, "--readings", 3)
        spoken.join()
    assert code == 0
    assert (said["answers"], said["published"]) == ({"model": 2, "abstain": 1}, {"b": 3})
    topics = [topic for topic, _ in broker.inbox if topic.startswith("line/")]
    assert topics == ["line/pump/station4"] * 3
    assert broker.unacknowledged == 0


def speak(broker: OddBroker) -> None:
    """Send two pictures and something that is none, once somebody listens."""
    end = time.monotonic() + 30
    while not broker.listeners and time.monotonic() < end:
        time.sleep(0.01)
    for payload in (encode_png(np.full((40, 60, 3), 7, np.uint8)), b"no picture",
                    encode_png(np.full((40, 60, 3), 70, np.uint8))):  # fmt: skip
        broker.publish("camera/station4", payload)


def test_check_says_what_comes_from_where(tmp_path: Path, factory: Path, typed: Typed) -> None:
    links = camera(tmp_path)
    picture(tmp_path, 1)
    code, said = typed(factory / "camera", "--links", links, "--check")
    assert (code, said["ok"]) == (0, True)
    assert said["links"]["camera"] == {"kind": "files", "connected": True, "detail": "connected"}
    assert said["next"] == [f"genba-edge serve {factory / 'camera'} --links {links}"]


@pytest.mark.slow
def test_check_of_a_broker_with_and_without(
    tmp_path: Path, factory: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba.edge.cli.serve._CHECK_S", 0.6)
    with OddBroker() as broker:
        text = f'[links.b]\nkind = "mqtt"\naddress = "{broker.address}"\ntopic = "t"\n'
        code, said = typed(factory / "pump", "--links", written(tmp_path, text), "--check")
        assert (code, said["ok"]) == (0, True)
        assert "b names no columns" in said["notes"][0]
    code, said = typed(factory / "pump", "--links", written(tmp_path, text), "--check")
    assert (code, said["ok"]) == (1, False)
    assert "no broker at" in said["links"]["b"]["detail"]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--links", "no.toml"], "G101"),
        (["--links", "{links}", "--time-scale", "0"], "G110"),
        (["--links", "{links}", "--line", "other"], "G676"),
        ([], "G110"),
    ],
    ids=["no file", "no time", "another line", "no links"],
)
def test_a_mistake_gets_a_sentence(
    tmp_path: Path, factory: Path, typed: Typed, argv: list[str], code: str
) -> None:
    links = camera(tmp_path)
    given = [word.format(links=links) for word in argv]
    exit_code, said = typed(factory / "camera", *given)
    assert said["problem"]["code"] == code
    assert exit_code in (2, 3)


def test_a_link_file_for_another_package(tmp_path: Path, factory: Path, typed: Typed) -> None:
    text = (
        '[links.plc]\nkind = "opcua"\naddress = "opc.tcp://h"\n[links.plc.columns]\n'
        'flwo = { node = "i=1" }\n'
    )
    code, said = typed(factory / "pump", "--links", written(tmp_path, text))
    assert (code, said["problem"]["code"]) == (3, "G691")
    assert "did you mean flow?" in said["problem"]["what"]


def test_without_a_release_or_an_agent(tmp_path: Path, typed: Typed) -> None:
    code, said = typed("--links", camera(tmp_path))
    assert (code, said["problem"]["code"]) == (3, "G687")
