"""Jobs in a headless Chromium, on a page that a server of this process gives it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from converter.errors import ConverterError, UsageError
from tools.web.jobs import Job
from tools.web.node import OPTIMISED
from tools.web.package import Package

__all__ = ["find_chromium", "run_in_chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_HERE = Path(__file__).parent
_PAGE = b'<!doctype html><meta charset="utf-8"><title>job</title><script type="module" src="/in_browser.mjs"></script>'
_SCRIPTS = ("in_browser.mjs", "runner.mjs")
_ENDED = "ended"
_NAME = re.compile(r"[a-z0-9_]+(\.json)?")
_TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json"}
_ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Lets the page read a clock of microseconds instead of tenths of milliseconds."""

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage")
_GRACE = 10.0


def find_chromium() -> str:
    """Path of a Chromium or Chrome.

    Raises:
        UsageError: there is none.
    """
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise UsageError("there is no Chromium or Chrome", where="ONNX Runtime Web", hint="install one (apt-get install chromium)")
    return found


def run_in_chromium(job: Job, package: Package, *, seconds: float = 3600.0) -> None:
    """Perform a job; its results are in its folder then.

    Args:
        seconds: after which the browser is ended.

    Raises:
        UsageError: there is no Chromium.
        ConverterError: the runtime fails, or the browser ends or is not done in time.
    """
    program = find_chromium()
    job.write()
    where = f"onnxruntime-web {package.version}"
    with _served(job.folder, package) as address, _started([program, *_FLAGS, f"--js-flags={OPTIMISED}"], address) as browser:
        end = time.monotonic() + seconds
        while not (job.folder / _ENDED).exists():
            if browser.poll() is not None:
                raise ConverterError(f"the browser ended with code {browser.returncode}", where=program, hint="run it by hand to see why")
            if time.monotonic() > end:
                raise ConverterError(f"the browser was not done after {seconds:.0f} seconds", where=where)
            time.sleep(0.1)
    if complaint := (job.folder / _ENDED).read_text(errors="replace"):
        raise ConverterError(f"ONNX Runtime Web fails in Chromium: {complaint[:200]}", where=where)


class _Handler(BaseHTTPRequestHandler):
    """Gives the page, the runtime and the job; takes results."""

    protocol_version = "HTTP/1.1"

    def __init__(self, folder: Path, package: Package, *more: object) -> None:
        self.folder, self.package = folder, package
        super().__init__(*more)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer with a file."""
        if self.path == "/":
            self._answer(200, _PAGE, "text/html")
            return
        path = self._path()
        if path is None or not path.is_file():
            self._answer(404)
            return
        self._answer(200, path.read_bytes(), _TYPES.get(path.suffix, "application/octet-stream"))

    def do_PUT(self) -> None:
        """Keep a result; whoever looks for the file sees all of it or none."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = self._path()
        if path is None or path.parent != self.folder:
            self._answer(403)
            return
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(content)
        part.replace(path)
        self._answer(200)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _path(self) -> Path | None:
        folder, _, name = self.path.removeprefix("/").rpartition("/")
        if folder == "job" and _NAME.fullmatch(name):
            return self.folder / name
        if folder == "ort" and "\\" not in name and name not in ("", ".", ".."):
            return self.package.distribution / name
        return _HERE / name if folder == "" and name in _SCRIPTS else None

    def _answer(self, code: int, content: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(code)
        for key, value in {**_ISOLATED, "Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store"}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def _served(folder: Path, package: Package) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, folder, package))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def _started(command: list[str], address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A browser with an empty profile, in a process group of its own, which is ended at the end."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        words = [*command, f"--user-data-dir={profile}", address]
        silent = subprocess.DEVNULL
        browser = subprocess.Popen(words, stdin=silent, stdout=silent, stderr=silent, start_new_session=True)
        try:
            yield browser
        finally:
            for which in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(browser.pid, which)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    browser.wait(_GRACE)
