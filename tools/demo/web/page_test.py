"""The page in a headless Chromium: a dropped picture gets the answers of Python. Skipped where a browser or the runtime is not there."""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from converter.calibration.preprocess import apply_preprocess, parse_preprocess
from converter.errors import ModelError, UsageError
from converter.load.metadata import CLASSES, PREPROCESS
from converter.options import Options
from converter.pipeline import convert
from converter.report_page.testing.browser import Tab, find_browser, open_browser
from converter.runtime.session import open_session, run_session
from converter.testing.models import hybrid_model
from tools.demo.web.__main__ import main
from tools.demo.web.server import Demo, describe, serving
from tools.web.package import Package, find_package

SPEC = "imagenet;resize=pad"
NAMES = [f"kind {index}" for index in range(10)]
METADATA = {PREPROCESS: SPEC, CLASSES: json.dumps(NAMES)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A float network, and what was converted from it, in the mobile format."""
    folder = tmp_path_factory.mktemp("models")
    onnx.save(hybrid_model(metadata=METADATA), folder / "float.onnx")
    options = Options(samples=3, threads=1, method="minmax", placement="all", target="web")
    convert(folder / "float.onnx", folder / "int8.onnx", options, ort_out=folder / "int8.ort")
    return {"float": folder / "float.onnx", "int8": folder / "int8.ort"}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "tiles.png"
    tiles = np.random.default_rng(5).integers(0, 256, (9, 13, 3)).astype(np.uint8)
    Image.fromarray(np.kron(tiles, np.ones((11, 9, 1), np.uint8))).save(path)
    return path


def scores_of(path: Path, picture: Path) -> np.ndarray:
    pixels = apply_preprocess(Image.open(picture), 32, 32, 3, parse_preprocess(SPEC))
    scores: np.ndarray = run_session(open_session(path, threads=1), {"image": pixels[None]})["logits"][0]
    return scores


def dropped(tab: Tab, name: str, content: bytes) -> None:
    """Let go of a file over the page."""
    text = base64.b64encode(content).decode()
    tab.run(
        f"""(() => {{
          const bytes = Uint8Array.from(atob('{text}'), (letter) => letter.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], '{name}'));
          document.querySelector('#drop').dispatchEvent(new DragEvent('drop', {{ dataTransfer, bubbles: true, cancelable: true }}));
        }})()"""
    )


def wait_for(tab: Tab, condition: str) -> None:
    end = time.monotonic() + 30
    while not tab.run(condition):
        assert time.monotonic() < end, tab.text("body")
        time.sleep(0.02)


@pytest.fixture(scope="module")
def package() -> Package:
    try:
        return find_package()
    except UsageError as error:
        pytest.skip(f"no ONNX Runtime Web: {error.what} ({error.hint})")


@pytest.fixture(scope="module")
def tab(models: dict[str, Path], package: Package) -> Iterator[Tab]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium or Chrome on the path (Debian: apt-get install chromium)")
    with serving(describe(models, package)) as server, open_browser(program) as browser:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        found = browser.open(f"http://127.0.0.1:{server.server_address[1]}/", width=900)
        wait_for(found, "document.body.dataset.ready === 'yes'")
        yield found
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_dropped_picture_gets_the_answers_of_python_and_times(tab: Tab, models: dict[str, Path], picture: Path) -> None:
    dropped(tab, "tiles.png", picture.read_bytes())
    wait_for(tab, "document.querySelector('#verdict').textContent.includes('median')")
    for side, path in models.items():
        wanted = scores_of(path, picture)
        shown = [float(text) for text in tab.run(f"[...document.querySelectorAll('#{side} li')].map((line) => line.dataset.score)")]
        best = np.argsort(-wanted, kind="stable")[:5]
        # a pixel that differs by one code would move each score by more
        assert shown == pytest.approx([float(wanted[index]) for index in best], rel=1e-4, abs=1e-5)
        assert tab.texts(f"#{side} li span:nth-child(2)") == [NAMES[index] for index in best]
        assert float(tab.text(f"#{side} .time b")) >= 0
    assert "times" in tab.text("#verdict") and tab.text("#ask") == "tiles.png"
    assert not [text for text in tab.complaints if not text.startswith("asks for http://127.0.0.1")], "nothing is asked of other machines"


@pytest.mark.slow
def test_what_is_no_picture_is_told(tab: Tab) -> None:
    dropped(tab, "words.txt", b"words")
    wait_for(tab, "!document.querySelector('#warning').hidden")
    assert tab.text("#warning") == "This file is no picture that the browser can read."


def test_the_page_is_told_what_the_models_say(models: dict[str, Path], tmp_path: Path) -> None:
    about = describe(models, Package(tmp_path, "1.0.0")).about
    assert (about["height"], about["width"], about["resize"], about["spec"]) == (32, 32, "pad", SPEC)
    assert about["classes"] == tuple(NAMES) and about["mean"] == (0.485, 0.456, 0.406)
    assert about["files"]["int8"] == {"name": "int8.ort", "bytes": models["int8"].stat().st_size}
    assert about["warning"] == ""


def test_no_other_file_is_served(models: dict[str, Path], picture: Path, tmp_path: Path) -> None:
    demo = Demo(models, {}, Package(tmp_path, "1.0.0"), picture)
    assert (demo.file("/model/int8"), demo.file("/picture")) == (models["int8"], picture)
    assert [demo.file(path) for path in ("/server.py", "/model/x", "/ort/..", "/ort/a/../../b", "//etc/passwd")] == [None] * 5
    with serving(Demo(models, {"a": 1}, Package(tmp_path, "1.0.0"))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        with urllib.request.urlopen(f"{address}/about.json") as answer:
            assert json.load(answer) == {"a": 1}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/ort/absent.mjs")
        server.shutdown()
        thread.join()


def test_models_that_cannot_be_shown(models: dict[str, Path], tmp_path: Path) -> None:
    package = Package(tmp_path, "1.0.0")
    onnx.save(hybrid_model(dynamic_size=True), tmp_path / "open.onnx")
    opened = {"float": tmp_path / "open.onnx", "int8": tmp_path / "open.onnx"}
    with pytest.raises(UsageError, match="leave the size of pictures open"):
        describe(opened, package)
    assert describe(opened, package, size=(64, 48)).about["width"] == 48
    with pytest.raises(UsageError, match="do not take the same pictures"):
        describe({**models, "float": tmp_path / "open.onnx"}, package)
    sketch = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])],
    )
    onnx.save(onnx.helper.make_model(sketch, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "relu.onnx")
    with pytest.raises(ModelError, match="takes no single picture"):
        describe({"float": tmp_path / "relu.onnx", "int8": tmp_path / "relu.onnx"}, package)


def test_the_command_says_what_is_missing(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(models["float"]), str(models["int8"])]
    assert main([*words, "--web", str(tmp_path)]) == 2
    assert "python -m tools.web.setup FOLDER" in capsys.readouterr().err
    installed = tmp_path / "node_modules" / "onnxruntime-web"
    installed.mkdir(parents=True)
    (installed / "package.json").write_text('{"version": "1.0.0"}')
    assert main([*words, "--web", str(tmp_path), "--picture", str(tmp_path / "absent.png")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert main([*words, "--web", str(tmp_path), "--port", "70000"]) == 2
    assert "the port cannot be used" in capsys.readouterr().err
