"""A headless Chromium for tests of the page, spoken to through two pipes in the Chrome DevTools Protocol.

The protocol: https://chromedevtools.github.io/devtools-protocol/. With ``--remote-debugging-pipe``, Chromium reads messages from file
descriptor 3 and writes to 4, each a JSON object that ends in a zero byte. So no library is needed, and no network.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Browser", "Tab", "find_browser", "open_browser"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_HIGH = 20  # file descriptors that neither a shell nor Chromium has in use
_PATIENCE = 60
_KEYS = {
    "ArrowDown": 40,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowLeft": 37,
    "Home": 36,
    "End": 35,
    "PageDown": 34,
    "PageUp": 33,
    "Escape": 27,
    "Tab": 9,
}


def find_browser() -> str | None:
    """Path of a Chromium or Chrome, None if there is none."""
    return next((found for found in map(shutil.which, _NAMES) if found and shutil.which("bash")), None)


class Browser:
    """A running browser."""

    def __init__(self, write: Any, read: Any) -> None:
        self._write, self._read = write, read
        self._number = 0
        self._waiting = b""
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command and wait for its reply; what happens meanwhile is kept in ``events``.

        Raises:
            RuntimeError: the browser refuses, or has gone.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            reply = self._next()
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']['message']}")
                result: dict[str, Any] = reply["result"]
                return result
            self.events.append(reply)

    def wait(self, method: str, session: str) -> None:
        """Wait for an event of a tab, unless it has happened."""
        while not any(e.get("method") == method and e.get("sessionId") == session for e in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            if not select.select([self._read], [], [], _PATIENCE)[0]:
                raise RuntimeError(f"the browser has said nothing for {_PATIENCE} seconds")
            more = os.read(self._read.fileno(), 1 << 16)
            if not more:
                raise RuntimeError("the browser has gone")
            self._waiting += more
        line, self._waiting = self._waiting.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def open(self, page: Path | str, *, width: int = 1360, height: int = 900, dark: bool = False, phone: bool = False) -> Tab:
        """Open a page in a tab of its own and wait until it is loaded.

        Args:
            page: a file, or an address.
            width: of the window, in CSS pixels.
            height: of it.
            dark: the system prefers dark pages.
            phone: fingers instead of a mouse.
        """
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable", session)
        self.ask("Performance.enable", session, timeDomain="threadTicks")
        self.ask("Emulation.setDeviceMetricsOverride", session, width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", session, features=scheme)
        address = page if isinstance(page, str) else page.resolve().as_uri()
        self.ask("Page.navigate", session, url=address)
        self.wait("Page.loadEventFired", session)
        return Tab(self, session, address)


class Tab:
    """A loaded page."""

    def __init__(self, browser: Browser, session: str, url: str) -> None:
        self.browser, self.session, self.url = browser, session, url

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression.

        Raises:
            RuntimeError: the script fails.
        """
        found = self.browser.ask("Runtime.evaluate", self.session, expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.texts(selector)[0]

    def texts(self, selector: str) -> list[str]:
        """What all such elements say, in order."""
        return list(self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText ?? e.textContent)"))

    def click(self, selector: str) -> None:
        """Scroll to an element and press the mouse on its middle."""
        query = json.dumps(selector)
        self.run(f"document.querySelector({query}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(f"document.querySelector({query}).getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.browser.ask("Input.dispatchMouseEvent", self.session, type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key, named as in ``KeyboardEvent.key``."""
        known = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]} if key in _KEYS else {"key": key, "text": key}
        for kind in ("keyDown", "keyUp"):
            self.browser.ask("Input.dispatchKeyEvent", self.session, type=kind, **known)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.browser.ask("Input.insertText", self.session, text=text)

    def choose(self, selector: str, value: str) -> None:
        """Choose an entry of a list."""
        query, wanted = json.dumps(selector), json.dumps(value)
        self.run(f"(() => {{ const s = document.querySelector({query}); s.value = {wanted}; s.dispatchEvent(new Event('change')) }})()")

    def processor_seconds(self) -> float:
        """Time of the processor that the page has taken so far, in seconds: what else runs on the machine does not count."""
        found = self.browser.ask("Performance.getMetrics", self.session)["metrics"]
        return float(next(metric["value"] for metric in found if metric["name"] == "TaskDuration"))

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write what is seen as PNG; the whole page, or the window."""
        found = self.browser.ask("Page.captureScreenshot", self.session, format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and whatever was asked of a network or of another file."""
        found = []
        for event in self.browser.events:
            params, method = event.get("params", {}), event.get("method")
            if event.get("sessionId") != self.session:
                continue
            if method == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(str(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif (
                method == "Network.requestWillBeSent"
                and params["request"]["url"] != self.url
                and not params["request"]["url"].startswith("data:")
            ):
                found.append(f"asks for {params['request']['url']}")
        return found


@contextlib.contextmanager
def open_browser(program: str) -> Iterator[Browser]:
    """Start a headless browser with an empty profile, and end it."""
    for_browser, write = os.pipe()
    read, from_browser = os.pipe()
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, _HIGH) for fd in (for_browser, from_browser)]
    os.close(for_browser)
    os.close(from_browser)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        os.fdopen(write, "wb") as writer,
        os.fdopen(read, "rb") as reader,
    ):
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
        ]
        words = [program, *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        # the shell gives the pipes the numbers that the browser expects
        started = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}', "bash", *words],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in theirs:
            os.close(fd)
        try:
            browser = Browser(writer, reader)
            yield browser
            with contextlib.suppress(RuntimeError, OSError):
                browser.ask("Browser.close")
        finally:
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
