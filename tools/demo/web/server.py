"""What the page is given: itself, the runtime, both models, and what they say of themselves."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from converter.calibration.preprocess import PRESETS, spec_text, stated_preprocess
from converter.errors import ModelError, UsageError
from converter.load.metadata import TARGET, class_names
from converter.runtime.session import open_session
from tools.web.package import Package

__all__ = ["Demo", "describe", "serving"]

_HERE = Path(__file__).parent
_PAGES = {"/": "page.html", "/page.css": "page.css", "/page.mjs": "page.mjs", "/preprocess.mjs": "preprocess.mjs"}
_TYPES = {".html": "text/html", ".css": "text/css", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json"}
_ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Lets the page read a clock of microseconds instead of tenths of milliseconds."""


@dataclass(frozen=True)
class Demo:
    """What is shown.

    Attributes:
        models: files by their side of the page, ``float`` and ``int8``.
        about: what the page asks for first, see :func:`describe`.
        package: the runtime.
        picture: that is shown at once, if there is one.
    """

    models: Mapping[str, Path]
    about: Mapping[str, Any]
    package: Package
    picture: Path | None = None

    def file(self, path: str) -> Path | None:
        """The file that a path of the page stands for, None if there is none."""
        folder, _, name = path.removeprefix("/").rpartition("/")
        if path in _PAGES:
            return _HERE / _PAGES[path]
        if folder == "model":
            return self.models.get(name)
        if folder == "ort" and "\\" not in name and name not in ("", ".", ".."):
            return self.package.distribution / name
        return self.picture if path == "/picture" else None


def describe(models: Mapping[str, Path], package: Package, *, size: tuple[int, int] | None = None, picture: Path | None = None) -> Demo:
    """Read what the page has to know from the models' metadata: how pictures become inputs, and the names of the classes.

    Args:
        models: ``float`` and ``int8``, in ONNX or ORT format.
        size: height and width of pictures for models that leave them open.

    Raises:
        ModelError: a model does not load, or takes no single picture.
        UsageError: it leaves its size open, and none is given.
    """
    sessions = {side: open_session(path, threads=1) for side, path in models.items()}
    inputs = {side: _shape(session, models[side]) for side, session in sessions.items()}
    metadata = {side: session.get_modelmeta().custom_metadata_map for side, session in sessions.items()}
    if inputs["float"] != inputs["int8"]:
        where = f"{inputs['float']} and {inputs['int8']}"
        raise UsageError("the two models do not take the same pictures", where=where, hint="give a model and what was converted from it")
    fixed = [length if isinstance(length, int) else None for length in inputs["int8"][2:]]
    if None in fixed and size is None:
        raise UsageError("the models leave the size of pictures open", where=str(models["int8"]), hint="say it: --size HEIGHT WIDTH")
    height, width = (length or given for length, given in zip(fixed, size or (0, 0), strict=True))
    preprocess = stated_preprocess(metadata["int8"]) or stated_preprocess(metadata["float"]) or PRESETS["unit"]
    target = metadata["int8"].get(TARGET, "")
    about = {
        "files": {side: {"name": path.name, "bytes": path.stat().st_size} for side, path in models.items()},
        "runtime": package.version,
        "input": sessions["int8"].get_inputs()[0].name,
        "height": height,
        "width": width,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "resize": preprocess.resize,
        "spec": spec_text(preprocess),
        "classes": class_names(metadata["int8"]) or class_names(metadata["float"]),
        "warning": "" if target in ("web", "") else f"The int8 file was made for {target}; for browsers convert with --target web.",
        "picture": "" if picture is None else picture.name,
    }
    return Demo(models, about, package, picture)


def _shape(session: Any, path: Path) -> list[int | str | None]:
    """Of the only input: [N, 3, H, W].

    Raises:
        ModelError: it is not that.
    """
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else []
    if len(shape) != 4 or shape[1] != 3 or (isinstance(shape[0], int) and shape[0] != 1):
        raise ModelError("the model takes no single picture as float [1, 3, H, W]", where=str(path), hint="give a classifier of pictures")
    return list(shape)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, demo: Demo, *more: object) -> None:
        self.demo = demo
        super().__init__(*more)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer with a file, or with what is known of the models."""
        path = self.path.partition("?")[0]
        if path == "/about.json":
            self._answer(200, json.dumps(self.demo.about).encode(), "application/json")
            return
        file = self.demo.file(path)
        if file is None or not file.is_file():
            self._answer(404)
        else:
            self._answer(200, file.read_bytes(), _TYPES.get(file.suffix, "application/octet-stream"))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, code: int, content: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(code)
        for key, value in {**_ISOLATED, "Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store"}.items():
            self.send_header(key, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a browser that has gone wants nothing any more
            self.wfile.write(content)


@contextlib.contextmanager
def serving(demo: Demo, port: int = 0) -> Iterator[ThreadingHTTPServer]:
    """A server on the loopback, not yet started; port 0 takes a free one.

    Raises:
        UsageError: the port is taken.
    """
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, demo))
    except (OSError, OverflowError) as error:
        what = f"the port cannot be used: {getattr(error, 'strerror', None) or error}"
        raise UsageError(what, where=f"--port {port}", hint="name another one; 0 takes a free one") from None
    with server:
        yield server
