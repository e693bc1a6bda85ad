"""`genba keys`, and what `genba up` says and refuses before it answers."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from genba.core import keys
from genba.core.keys import token_digest
from genba.core.problem import Problem
from genba.serve.process.fleet import Count, Fleet, sized
from genba.serve.settings import Settings
from genba.store.home import Store
from genba.store.keys import Grant, add_key, all_keys, mark_used, revoke_key
from genba.ui.cli import up, up_on
from genba.ui.cli.app import run_command


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Store.open(home).close()
    monkeypatch.setenv("GENBA_HOME", str(home))
    monkeypatch.delenv("GENBA_SERVE_KEY", raising=False)
    return home


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = run_command(["keys", *words, "--json"])
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, answer


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run_command(["keys", *words]) == 0
    return capsys.readouterr().out


def test_a_key_is_shown_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, made = said(
        capsys, "add", "mes", "--scope", "infer", "--scope", "read", "--line", "pump",
        "--days", "30", "--rate", "10/s", "--concurrent", "4", "--me", "boss",
    )  # fmt: skip
    assert code == 0
    with Store.open(here) as store:
        (key,) = all_keys(store.ledger).values()
    assert key.digest == token_digest(made["key"].encode())
    assert (key.rate, key.concurrent, key.by) == (10.0, 4, "boss")
    assert key.scopes == {"infer", "read"}
    assert made["state"] == "valid"
    _, listed = said(capsys, "list")
    (one,) = listed["keys"]
    assert one == {k: v for k, v in made.items() if k in one}
    assert "key" not in one
    text = shown(capsys)
    assert made["key"] not in text
    assert "mes" in text
    assert "not yet" in text
    with Store.open(here) as store:
        mark_used(store.ledger, [key.id], round(time.time() * 1_000))
    assert "not yet" not in shown(capsys, "list")


def test_a_key_is_revoked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = said(capsys, "add", "mes", "--scope", "admin")[1]["key"]
    id = keys.token_id(token.encode())
    assert id is not None
    text = shown(capsys, "revoke", id, "--comment", "lost", "--me", "boss")
    assert "is revoked" in text
    assert "boss" in text
    assert said(capsys)[1]["keys"][0]["state"] == "revoked"
    with Store.open(here) as store:
        (event,) = store.ledger.events(kinds=(keys.REVOKED,))
        assert event.body == {"by": "boss", "reason": "lost"}


def test_nothing_to_list(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is none" in shown(capsys)
    assert "genba keys add NAME --scope infer" in shown(capsys, "list")


def test_a_key_without_limits_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "add", "mes", "--scope", "infer")
    assert "never" in text
    assert "It is not shown again" in text


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["add"], "G110"),
        (["revoke"], "G110"),
        (["add", "mes"], "G751"),
        (["add", "mes", "--scope", "infer", "--rate", "many"], "G110"),
        (["add", "mes", "--scope", "infer", "--rate", "-1"], "G751"),
        (["add", "MES", "--scope", "infer"], "G104"),
        (["revoke", "nothing"], "G752"),
        (["burn"], "G110"),
    ],
)
def test_what_cannot_be_done(
    words: list[str], code: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code, answer = said(capsys, *words)
    assert exit_code in (2, 3)
    assert answer["problem"]["code"] == code
    assert answer["problem"]["try"]


def test_tls_needs_both_files(here: Path) -> None:
    for serving in (up.Serving(tls_cert=Path("c")), up.Serving(tls_key=Path("k"))):
        with pytest.raises(Problem) as caught:
            serving.settings(here, 0)
        assert caught.value.code == "G110"
    both = up.Serving(tls_cert=Path("c"), tls_key=Path("k"), grpc_port=5)
    settings = both.settings(here, 443)
    assert settings.tls is not None
    assert settings.url == "https://127.0.0.1:443"
    spoken = "Open Inference Protocol, and OpenAI for lines of language, HTTP"
    assert up._protocols(settings) == f"{spoken} over TLS; gRPC over TLS on port 5"
    assert up._protocols(Settings()) == spoken


def test_it_says_who_may_ask(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def who(processes: int = 1, **more: Any) -> str:
        return up._who(store, Fleet(Settings(**more), Count(processes=processes)))

    with Store.open(here) as store:
        assert who().startswith("everybody on this machine")
        first, _ = add_key(store.ledger, "a", Grant(scopes=("infer",), rate=8), by="me", now_ms=0)
        assert who() == "1 key"
        add_key(store.ledger, "b", Grant(scopes=("infer",), days=1), by="me", now_ms=0)
        assert who() == "1 key", "the other has expired"
        assert who(4) == "1 key; each process grants 1/4 of its limits"
        revoke_key(store.ledger, first.id, by="me")
        assert who() == "0 keys"
        monkeypatch.setenv("GENBA_SERVE_KEY", "secret")
        assert who() == "0 keys, and the one in GENBA_SERVE_KEY"


@pytest.mark.parametrize(
    ("ready", "cores", "memory_mib", "processes", "says"),
    [
        ({"lines": [], "inline": []}, 8, 64_000, 1, "no line"),
        ({"lines": ["cnn"], "inline": []}, 8, 64_000, 1, "threads use all cores"),
        ({"lines": ["cnn", "pump"], "inline": ["pump"]}, 8, 64_000, 8, "one per core: pump"),
        ({"lines": ["pump"], "inline": ["pump"]}, 1, 64_000, 1, "one core"),
        ({"lines": ["pump"], "inline": ["pump"]}, 8, 1_000, 1, "memory"),
        ({}, 8, 64_000, 1, "no line"),
    ],
)
def test_how_many_processes(
    ready: dict[str, Any], cores: int, memory_mib: int, processes: int, says: str
) -> None:
    found = sized(ready, cores, memory_mib)
    assert found.processes == processes
    assert says in found.reason


class Standing:
    """A fleet without processes."""

    restarts = 0

    def __init__(self, settings: Settings, asked: Count) -> None:
        self.settings, self.count = settings, asked

    def start(self) -> dict[str, Any]:
        return {"ready": True, "workers": [{"server": "server-1"}, {"server": "server-2"}]}

    def look_after(self) -> None:
        return None

    def stop(self) -> None:
        return None


def test_up_says_where_how_and_to_whom_it_answers(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(up_on, "Fleet", Standing)
    argv = ["up", "--port", "81", "--grpc-port", "82", "--processes", "2", "--seconds", "0.01"]
    assert run_command([*argv, "--json"]) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert (answer["url"], answer["grpc_port"]) == ("http://127.0.0.1:81", 82)
    assert answer["processes"] == 2
    for words in (
        "Genba answers at http://127.0.0.1:81",
        "gRPC on port 82",
        "everybody on this machine",
        "2 (as asked)",
        "server-1, server-2",
    ):
        assert words in told.err
