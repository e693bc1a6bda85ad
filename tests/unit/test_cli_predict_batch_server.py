"""`genba predict --batch` through a server: it stands back for those who wait."""

from collections.abc import Callable, Mapping
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genba.core.problem import Problem
from genba.serve.client import Client
from genba.serve.limits import Limits
from genba.store.home import Store
from genba.testing.serving import place, serve_here, small_package, until
from genba.ui.cli import predict
from genba.ui.cli.predict_batch_ask import BatchClient
from tests.unit.predict_batch_rows import (
    SETTINGS,
    batch,
    pump_home,
    read,
    rows_of_pumps,
    small_parts,
    write,
)

Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def pump(home: Path) -> Store:
    return pump_home(home)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch)


def test_a_server_answers_with_one_package_and_lets_others_pass(
    pump: Store, home: Path, tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands back where it is told to, asks again, and gives up on a package that has left."""
    path, to = write(rows_of_pumps(40), tmp_path / "rows.parquet"), tmp_path / "out.parquet"
    ask(*batch(path, tmp_path / "here.parquet"))
    stable = read(tmp_path / "here.parquet")[0]["package"]
    canary = small_package(pump, "pump", seed=7, settings=SETTINGS)
    place(pump, "pump", "canary", canary, share=0.5)
    seen: list[Mapping[str, str]] = []
    plain = Client._ask
    busy = HTTPMessage()
    busy["Retry-After"] = "0.01"

    def crowded(client: Client, *asked: Any) -> Any:
        seen.append(asked[3])
        if len(seen) % 3 == 1:
            return 503, busy, b'{"error": "no room", "code": "G706"}'
        if len(seen) % 7 == 2:
            raise Problem("G712", "It does not answer.", tries=["genba up"])
        return plain(client, *asked)

    told: list[dict[str, Any]] = []

    def script(client: Client) -> None:
        argv = tuple(word for word in batch(path, to) if word not in ("--local", "stable"))
        monkeypatch.setattr(Client, "_ask", crowded)
        told.append(ask(*argv, "--url", client.url)[1])
        place(pump, "pump", "deploy", small_package(pump, "pump", seed=8, settings=SETTINGS))
        monkeypatch.setattr(Client, "_ask", plain)
        until(lambda: stable not in client.metadata("pump")["versions"])
        monkeypatch.setattr(predict, "stable_of", lambda *_: stable)
        told.append(ask(*argv, "--url", client.url)[1])

    serve_here(home, script, limits=Limits(poll_s=0.01, capture_s=0.05, sweep_s=0.02))
    assert {fields["X-Genba-Priority"] for fields in seen} == {"batch"}
    assert (told[0]["rows"], told[0]["package"]) == (40, stable)
    found = pl.read_parquet(to)
    assert found["prediction"].n_unique() == 40
    assert found.drop("prediction").equals(pl.read_parquet(tmp_path / "here.parquet"))
    assert told[1]["problem"]["code"] == "G767"


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = HTTPMessage()
    busy["Retry-After"] = "soon"
    asked: list[str] = []

    def refuse(_client: Client, *words: Any) -> Any:
        asked.append(words[1])
        return 429, busy, b'{"error": "too many", "code": "G706"}'

    monkeypatch.setattr(Client, "_ask", refuse)
    client = BatchClient("http://127.0.0.1:1", patience_s=0.3)
    with pytest.raises(Problem, match="G706"):
        client.metadata("pump")
    assert len(asked) > 1

    def unreachable(_client: Client, *_words: Any) -> Any:
        raise Problem("G712", "It does not answer.", tries=["genba up"])

    monkeypatch.setattr(Client, "_ask", unreachable)
    with pytest.raises(Problem, match="G712"):
        client.metadata("pump")
