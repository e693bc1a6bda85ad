"""Documents through the whole server: by key, cited, and renewed while it runs."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from genba.core.codec import encode
from genba.core.line import Data, Line
from genba.data.documents import held
from genba.learn.encoder import LETTERS
from genba.stages import renewal
from genba.store.home import Store
from genba.store.keys import Grant, add_key
from genba.testing.serving import serve_here, until
from genba.testing.speller import Script
from genba.ui.cli.app import run_command
from tests.unit.lang_desk import LINE, Desk, home_of, port_of, said

ASSISTANT = b'{"library": {"least": -1.0, "gap": 9.0}}'
ASKED = "How much oil does pump P3 take?"
DESK = Line(
    name=LINE,
    task="language.chat",
    data=Data(source="package:helpdesk-faq"),
    options={"encoder": LETTERS},
)


def documents(folder: Path, litres: str) -> None:
    for name, text in {
        "open/oil.md": f"Pump P3 takes {litres} litres of mineral oil, changed every year.",
        "staff/price.md": "The oil of pump P3 is bought for 3 euro a litre, much of it at once.",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def renew(home: Path) -> str:
    with Store.open(home) as store:
        return renewal.refresh(store, DESK, by="mika").package


def traced(home: Path, capsys: pytest.CaptureFixture[str], prediction: str) -> dict[str, Any]:
    assert run_command(["trace", prediction, "--home", str(home)]) == 0
    assert "rests on" in capsys.readouterr().out
    assert run_command(["trace", prediction, "--home", str(home), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["rested_on"]
    assert "two litres" in found["text"]
    assert found["source"].startswith("files:")
    return dict(found)


def test_each_key_sees_its_documents_and_a_running_server_follows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents(tmp_path / "manuals", "two")
    with home_of(tmp_path, Script(), files={"assistant.json": ASSISTANT}) as (home, first, store):
        store.ledger.record("line", "line-1", encode(DESK), line=LINE)
        for name, access in (("open", ()), ("staff", ("staff",))):
            source = f"files:{tmp_path / 'manuals' / name}"
            held.add(store, LINE, held.Held(source=source, access=access))
        now_ms = round(time.time() * 1_000)
        keys = {
            name: add_key(
                store.ledger, name, Grant(scopes=("infer",), access=tags), by="mika", now_ms=now_ms
            )[1]
            for name, tags in {"guest": (), "worker": ("staff",)}.items()
        }
    package = renew(home)
    assert package != first

    def script(desk: Desk) -> None:
        def ask(name: str) -> Any:
            api = desk.with_key(keys[name])
            return api.chat.completions.create(model=LINE, messages=said(ASKED), max_tokens=500)

        def cited(answer: Any) -> set[str]:
            return {source["document"] for source in answer.genba["sources"]}

        guest, worker = ask("guest"), ask("worker")
        assert cited(guest) == {"oil.md"}
        assert cited(worker) == {"oil.md", "price.md"}
        assert "two litres" in guest.choices[0].message.content
        assert "3 euro" not in guest.choices[0].message.content
        desk.captured(guest.genba["prediction"])
        assert traced(home, capsys, guest.genba["prediction"])["document"] == "oil.md"
        documents(tmp_path / "manuals", "three")
        after = renew(home)
        until(lambda: ask("guest").genba["package"] == after)
        assert "three litres" in ask("guest").choices[0].message.content

    serve_here(home, lambda client: script(Desk(home, package, port_of(client))))
