"""The page for talking to a line, driven in a real browser: asked, judged, corrected."""

from pathlib import Path

import pytest

from genba.data.feedback import labels
from genba.store.feedback import FeedbackRow
from genba.store.home import Store
from genba.testing.serving import until
from tests.unit.lang_desk import ANSWER, LINE, Desk, served
from tests.unit.test_lang_feedback import Chat
from tests.unit.test_serve_page import CHROMIUM, DRIVER, Browser, browser

__all__ = ["browser"]  # a fixture

_ACT = "#talk article .act button"


@pytest.mark.slow
@pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="there is no chromium with chromedriver")
def test_a_person_talks_and_teaches(
    browser: Browser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(labels, "task_of", lambda *_: Chat())  # the desk has a package and no line
    served(tmp_path, lambda desk: _talk(browser, desk))


def _talk(browser: Browser, desk: Desk) -> None:
    browser.open(f"{desk.url}/talk")
    until(lambda: browser.shown("ask"))
    assert browser.run("return document.getElementById('line').value") == LINE
    browser.type("#author", "<b>ada</b>")
    browser.type("#question", "How high?\n")
    until(lambda: "server-" in browser.text("talk"))
    assert ANSWER in browser.text("talk")
    assert "model" in browser.text("talk")
    prediction = browser.run("return document.querySelector('.from').textContent").split(" · ")[-1]
    desk.captured(prediction)  # written down, so that feedback finds it
    browser.click(f"{_ACT}:nth-of-type(2)")
    until(lambda: "Thank you." in browser.text("talk"))
    browser.click(f"{_ACT}:nth-of-type(3)")
    browser.run("document.querySelector('#talk textarea').value = 'Thirteen: <i>metres</i>.'")
    browser.click("#talk article form button")
    until(lambda: not browser.run("return document.querySelector('#talk textarea').offsetParent"))
    until(lambda: len(_rows(desk)) == 2)
    bad, better = _rows(desk)
    assert (bad.value, bad.author, bad.status) == ("bad", "<b>ada</b>", "accepted")
    assert (better.kind, better.value) == ("correction", "answer: Thirteen: <i>metres</i>.")
    assert bad.prediction == better.prediction == prediction
    assert browser.complaints() == []


def _rows(desk: Desk) -> list[FeedbackRow]:
    with Store.open(desk.home) as store:
        return store.feedback.all(LINE)
