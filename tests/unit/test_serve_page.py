"""The page for a person, driven in a real browser: typed, clicked and read."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genba.testing.serving import RunningServer, until
from tests.unit.triton_clients import factory, photographs

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
KEY = "the key of the page's test"
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--window-size=1200,1200",
]
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name that WebDriver gives to elements

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="there is no chromium with chromedriver"),
]


class Browser:
    """A tab of a browser, by the WebDriver protocol."""

    def __init__(self, url: str) -> None:
        self._url = url
        asked = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": ARGUMENTS, "binary": CHROMIUM},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        started = self._call("POST", "", {"capabilities": {"alwaysMatch": asked}})
        self._url += f"/{started['sessionId']}"

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def text(self, id: str) -> str:
        text: str = self.run(f"return document.getElementById('{id}').innerText")
        return text

    def shown(self, id: str) -> bool:
        return bool(self.run(f"return document.getElementById('{id}').offsetParent !== null"))

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._call("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def clear(self, selector: str) -> None:
        self._call("POST", f"/element/{self._find(selector)}/clear", {})

    def complaints(self) -> list[str]:
        found = self._call("POST", "/se/log", {"type": "browser"})
        return [one["message"] for one in found if "favicon" not in one["message"]]

    def close(self) -> None:
        self._call("DELETE", "")

    def _find(self, selector: str) -> str:
        asked = {"using": "css selector", "value": selector}
        found: str = self._call("POST", "/element", asked)[_ELEMENT]
        return found

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        fields = {"Content-Type": "application/json"}
        asked = urllib.request.Request(self._url + path, data, fields, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(error.read().decode()[:2_000]) from None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen([DRIVER or "", f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        made = Browser(f"http://127.0.0.1:{port}/session")
        yield made
        made.close()
    finally:
        driver.terminate()
        driver.wait(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with factory(tmp_path_factory.mktemp("page")) as (started, _):
        yield started


def test_a_person_predicts_with_sensors(browser: Browser, server: RunningServer) -> None:
    browser.open(f"{server.url}/#pump")
    until(lambda: browser.text("name") == "pump")
    assert browser.text("lines").split() == ["pump", "shop", "spare"]
    assert "window" in browser.text("inputs")
    assert "expected" in browser.text("outputs")
    browser.click("#send")
    until(lambda: browser.shown("result"))
    facts = browser.text("facts")
    assert f"{server.server}-0" in facts
    assert "(stable)" in facts
    assert "ms round trip" in facts
    assert "score" in browser.text("answer")
    assert browser.complaints() == []


def test_a_mistake_is_told_and_mended(browser: Browser, server: RunningServer) -> None:
    browser.open(f"{server.url}/#spare")
    until(lambda: browser.text("name") == "spare")
    body = browser.run("return document.getElementById('body').value")
    browser.clear("#body")
    browser.type("#body", '{"inputs": []}')
    browser.click("#send")
    until(lambda: browser.shown("refused"))
    assert browser.text("refused").startswith("G704: ")
    assert not browser.shown("result")
    browser.clear("#body")
    browser.type("#body", body)
    browser.click("#send")
    until(lambda: browser.shown("result"))
    assert not browser.shown("refused")
    [said] = browser.complaints()
    assert "400 (Bad Request)" in said


def test_a_person_shows_an_image(browser: Browser, server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "part.png"
    file.write_bytes(photographs(1, 200)[0])
    browser.open(f"{server.url}/#pump")
    until(lambda: browser.text("name") == "pump")
    browser.click("button[data-line=shop]")
    until(lambda: browser.shown("drop"))
    browser.click("#send")
    until(lambda: browser.shown("refused"))
    browser.type("#file", str(file))
    until(lambda: browser.shown("picture"))
    assert browser.run("return document.getElementById('picture').complete")
    assert browser.text("hint") == "part.png"
    browser.click("#send")
    until(lambda: browser.shown("result"))
    assert "probability" in browser.text("answer")
    assert browser.run("return location.hash") == "#shop"
    assert browser.complaints() == []


def test_a_key_is_asked_for(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("keyed")
    with factory(folder, environment={"GENBA_SERVE_KEY": KEY}) as (server, _):
        browser.open(server.url)
        until(lambda: browser.shown("ask-key"))
        assert not browser.shown("all")
        browser.type("#key", "wrong\n")
        until(lambda: browser.shown("trouble"))
        assert browser.text("trouble").startswith("G709")
        browser.clear("#key")
        browser.type("#key", KEY + "\n")
        until(lambda: browser.shown("all"))
        assert not browser.shown("ask-key")
        browser.click("#send")
        until(lambda: browser.shown("result"))
        browser.complaints()
