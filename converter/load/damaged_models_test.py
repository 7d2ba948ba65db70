"""Files that are no models, and models that are damaged: refused, or harmless."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from converter.canonicalise.standard import to_canonical_opset
from converter.errors import ConverterError, ModelError
from converter.load.model import load
from converter.load.testing.files import refusal, written
from converter.testing.models import SaveHybrid, hybrid_model, make_model

FLOAT = TensorProto.FLOAT


def unary(op_type: str, *, domain: str = "", kind: int = FLOAT, opset: int = 17) -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x"], ["y"], name="the node", domain=domain)
    return make_model([node], [("x", kind, [1, 4])], [("y", kind, [1, 4])], opset=opset)


@pytest.mark.parametrize("content", [b"hello, this is text\n" * 20, b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"{}", b"\x00" * 64])
def test_not_onnx(tmp_path: Path, content: bytes) -> None:
    assert "ONNX" in refusal(written(tmp_path, content)).what


def test_empty_file(tmp_path: Path) -> None:
    assert "empty" in refusal(written(tmp_path, b"")).what


def test_truncated_anywhere(tmp_path: Path, save_hybrid: SaveHybrid) -> None:
    content = save_hybrid().read_bytes()
    lengths = {1, 2, 10, 100, *range(7, len(content), 1013), len(content) - 40, len(content) - 60}
    for length in sorted(lengths):
        assert "ONNX" in refusal(written(tmp_path, content[:length])).what, length


@pytest.mark.parametrize("text", ["name", "doc_string"])
def test_texts_that_are_no_texts(tmp_path: Path, text: str) -> None:
    model = unary("Relu")
    setattr(model.graph, text, "a long sentence")
    content = model.SerializeToString().replace(b"a long sentence", b"a long \xff\xff\xff\xff\xff\xff\xff\xff")
    assert "not text" in refusal(written(tmp_path, content)).what


def messages(message: Message) -> list[tuple[Message, FieldDescriptor]]:
    """All fields that are set, in a message and in those inside of it."""
    found = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                found += messages(inner)
    return found


def drop_or_repeat(message: Message, field: FieldDescriptor, place: int) -> None:
    """Clear a field; of one with several entries drop one, or have it twice, or move it to the end."""
    value = getattr(message, field.name)
    if isinstance(value, (Message, str, bytes, int, float)):
        message.ClearField(field.name)
        return
    index = place // 3 % len(value)
    entry = value[index]
    if place % 3 != 1:
        del value[index]
    if place % 3:
        value.extend([entry])


@st.composite
def damaged_models(draw: st.DrawFn) -> bytes:
    """Serialised hybrid networks with fields missing, repeated or out of order, other names and types, or bytes gone wrong."""
    model = hybrid_model(opset=draw(st.sampled_from([11, 17, 23])))
    for _ in range(draw(st.integers(0, 3))):
        fields = messages(model)
        message, field = fields[draw(st.integers(0, len(fields) - 1))]
        value = getattr(message, field.name)
        if isinstance(value, str):
            setattr(message, field.name, draw(st.sampled_from(["", "image", "logits", "Relu", "Split", "ai.onnx", "com.microsoft"])))
        elif isinstance(value, int):
            lowest = 0 if field.type == FieldDescriptor.TYPE_ENUM else -1
            setattr(message, field.name, draw(st.sampled_from([lowest, 0, 1, 2, 7, 9, 10, 11])))
        else:
            drop_or_repeat(message, field, draw(st.integers(0, 1000)))
    content = bytearray(model.SerializeToString())
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(content) - 1))
        content[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 9)) == 0 else content)


def test_damaged_bytes_are_refused_or_harmless(tmp_path: Path, save_hybrid: SaveHybrid) -> None:
    content = save_hybrid().read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in generator.integers(0, len(content), 20):
            damaged[int(place)] = int(generator.integers(0, 256))
        try:
            load(written(tmp_path, bytes(damaged)))
        except ModelError:
            refused += 1
    assert refused > 20


@given(content=damaged_models())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_models_are_refused_or_can_be_brought_to_the_canonical_opset(tmp_path: Path, content: bytes) -> None:
    try:
        to_canonical_opset(load(written(tmp_path, content)).model)
    except ConverterError as error:
        assert error.exit_code == 3
