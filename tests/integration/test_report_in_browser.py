"""The report in a real Chromium, spoken to through the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from erase.evaluation.report import Pair, write_report
from tests.unit.evaluation.test_plots import make_log
from tests.unit.evaluation.test_report import PAIRS
from tests.unit.evaluation.test_table import make_results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]
PHONE, PAPER, DESKTOP = 360, 700, 1280
SECONDS = 60.0
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH"),
]


class Browser:
    """A Chromium with one tab; messages are JSON that ends in a zero byte, on the descriptors 3 and 4."""

    def __init__(self, profile: Path) -> None:
        theirs_in, ours_out = _high_pipe()
        ours_in, theirs_out = _high_pipe()
        self.out, self.inp = ours_out, ours_in
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        log, flags = str(profile.with_suffix(".log")), os.O_WRONLY | os.O_CREAT
        self.process = os.posix_spawn(
            command[0],
            command,
            os.environ,
            setpgroup=0,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            ],
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.buffer, self.events, self.session = 0, b"", list[dict[str, Any]](), ""
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command's result; what happens meanwhile is added to ``events``."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def receive(self) -> dict[str, Any]:
        """The next message."""
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self.buffer:
            if not select.select([self.inp], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium has not answered for {SECONDS:.0f} s")
            self.buffer += os.read(self.inp, 1 << 20) or b'{"closed": true}\0'
        message, _, self.buffer = self.buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        if "closed" in answer:
            raise ConnectionError("Chromium has ended")
        return answer

    def open(self, file: Path, width: int, scheme: str = "light") -> None:
        """Loads a page at a true width in CSS pixels, and waits until it has loaded."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=file.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def evaluate(self, expression: str) -> Any:
        """A JavaScript expression's value in the page; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key down and up."""
        key_of = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **key_of)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key_of)

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """The page as a PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What the page or the browser logged: errors, refusals by the security policy, console output."""
        loud = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in loud]

    def requests(self) -> list[str]:
        """What was fetched, apart from what the page itself holds."""
        sent = (event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return [url for params in sent if not (url := params["request"]["url"]).startswith("data:")]

    def close(self) -> None:
        """Ends the browser and its children."""
        os.close(self.out)
        os.close(self.inp)
        os.killpg(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


def _high_pipe() -> tuple[int, int]:
    """A pipe whose descriptors do not collide with those that Chromium expects."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return high[0], high[1]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("chromium") / "profile")
    yield started
    started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full report whose prompts, names and command try to break out of the page."""
    evil, first = '<script>document.title = "broken"</script><img src=x onerror="document.title = 1">', PAIRS[0]
    pair = Pair(evil, 1, {"object": "star"}, first.before, first.after, first.seen_before, {"object": "star"})
    long = Pair("a" * 300, 2, {"object": "star"}, first.before, first.after, first.seen_before, {"object": "star"})
    results = make_results()
    results["command"] += f" --note '{evil}'"
    interval = {"estimate": 0.1234, "low": 0.1, "high": 0.15, "n": 30}
    results["moved"] = {"clip_distance": {"erased": interval, "kept": interval, "metric": "clip_distance"}}
    results["distances"] = {"kid": {"identity": {}, "kept": interval}}
    file = tmp_path_factory.mktemp("report") / "report.html"
    write_report(file, results, [pair, long, *PAIRS], make_log(200))
    return file


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_loads_whole_quiet_and_alone(browser: Browser, report: Path, width: int, scheme: str) -> None:
    browser.open(report, width, scheme)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.images.length") > 100
    waiting = "Promise.all([...document.images].filter(i => i.src).map(i => i.decode())).then(() => true)"
    assert browser.evaluate(waiting) is True
    assert browser.evaluate("[...document.images].filter(i => i.src && !i.naturalWidth).length") == 0
    assert browser.evaluate("document.title") == "star, erased from shapes"
    assert browser.complaints() == []
    assert browser.requests() == [report.as_uri()]


@pytest.mark.parametrize("width", [320, PHONE, 768, DESKTOP])
def test_page_never_scrolls_sideways(browser: Browser, report: Path, width: int) -> None:
    browser.open(report, width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('body *')]"
        ".filter(e => !e.closest('.scroll, pre, dialog, svg, .hidden, .skip'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert browser.evaluate(wide) == []


def test_table_scrolls_in_its_own_container_on_a_phone(browser: Browser, report: Path) -> None:
    browser.open(report, PHONE)
    wide = "[...document.querySelectorAll('.concepts, .scores, .collateral')].map(table => table.closest('.scroll'))"
    assert browser.evaluate(f"{wide}.length") == 3
    assert browser.evaluate(f"{wide}.every(e => e.scrollWidth > e.clientWidth)")


def test_print_fits_the_paper_and_is_black_on_white_at_night(browser: Browser, report: Path) -> None:
    browser.open(report, PAPER, "dark")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("document.documentElement.scrollWidth") <= PAPER
    assert browser.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.call("Emulation.setEmulatedMedia", media="")


def test_script_in_a_prompt_shows_as_text(browser: Browser, report: Path) -> None:
    browser.open(report, DESKTOP)
    assert browser.evaluate("document.scripts.length") == 1
    assert browser.evaluate("document.querySelector('.prompt').textContent").startswith("<script>document.title")
    assert browser.evaluate("document.title") == "star, erased from shapes"


def test_enter_enlarges_arrows_step_and_escape_returns(browser: Browser, report: Path) -> None:
    browser.open(report, DESKTOP)
    browser.evaluate("document.querySelectorAll('.pair button')[2].focus()")
    shown = "document.querySelector('[data-part=prompt]').textContent"
    prompts = browser.evaluate("[...document.querySelectorAll('.pair .prompt')].map(e => e.textContent)")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate("document.querySelector('dialog').open") is True
    assert browser.evaluate(shown) == prompts[2]
    browser.press("ArrowRight", 39)
    assert browser.evaluate(shown) == prompts[3]
    assert browser.evaluate("[...document.querySelectorAll('dialog img')].every(i => i.naturalWidth === 32)") is True
    browser.press("Escape", 27)
    closed = "new Promise(done => setTimeout(() => done(!document.querySelector('dialog').open), 100))"
    assert browser.evaluate(closed) is True
    assert browser.evaluate("document.activeElement === document.querySelectorAll('.pair button')[3]") is True
    assert browser.complaints() == []


def test_colors_keep_their_contrast_by_day_and_night(browser: Browser, report: Path) -> None:
    for scheme in ("light", "dark"):
        browser.open(report, DESKTOP, scheme)
        ratios = browser.evaluate(CONTRASTS)
        assert min(ratios.values()) >= 4.5, (scheme, ratios)


CONTRASTS = """(() => {
  const light = (hex) => hex.match(/\\w\\w/g).map((c) => parseInt(c, 16) / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const color = (name) => light(getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim());
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const found = {};
  for (const name of ["ink", "muted", "accent", "good", "bad", "forget", "retain", "lur"])
    for (const ground of ["ground", "card"]) found[name + " on " + ground] = ratio(color(name), color(ground));
  return found;
})()"""
