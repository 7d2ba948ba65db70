"""Bridge blocks of real exports as the literature counts them, and blocks that can be judged by their outputs."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import networkx
import numpy as np
import onnx
import onnx_ir as ir
import onnxsim
import pytest
import torch

from converter.calibration.observer import collect_statistics
from converter.canonicalise import canonicalise
from converter.cli.main import main
from converter.graph.queries import constant, consumers
from converter.sensitivity.bridge_blocks import Structure, find_structure
from converter.testing.models import SaveHybrid, hybrid_model
from converter.testing.sketch import Sketch, feeds_for

registry = pytest.importorskip("models.registry", reason="the families need timm")

COUNTS = {
    "mobilevit_xxs": {"round trip": 3},
    "mobilevitv2_050": {"round trip": 3},
    "efficientformer_l1": {"one way": 1},
    "efficientformerv2_s0": {"round trip": 2},
    "mobile_former_26m": {"map to tokens": 9, "tokens to map": 8},
}
"""Of Q-HyViT's count for Mobile-Former, 15, see docs/method.md."""


@cache
def exported(name: str, size: int, opset: int = 17, dynamo: bool = False, batch: str = "") -> onnx.ModelProto:
    torch.manual_seed(0)
    model = registry.create(name, classes=10, size=size).eval()
    image = torch.zeros(1, 3, size, size)
    if dynamo:
        program = torch.onnx.export(model, (image,), dynamo=True, input_names=["image"], verbose=False)
        assert program is not None
        return program.model_proto
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        axes = {"image": {0: batch}} if batch else None
        torch.onnx.export(model, (image,), path, opset_version=opset, input_names=["image"], dynamic_axes=axes, dynamo=False)
        return onnx.load(path)


def found(source: onnx.ModelProto) -> tuple[ir.Model, Structure]:
    shape = [d.dim_value or 1 for d in source.graph.input[0].type.tensor_type.shape.dim]
    feeds = [{source.graph.input[0].name: np.random.default_rng(0).random(shape, dtype=np.float32)}]
    model = canonicalise(source, feeds).model
    return model, find_structure(model, {n: s.shape for n, s in collect_statistics(model, feeds, threads=1).tensors.items()})


def kinds(structure: Structure) -> dict[str, int]:
    return dict(Counter(block.kind for block in structure.blocks))


def check_blocks(model: ir.Model, structure: Structure) -> None:
    """Blocks are disjoint and convex, in graph order, and nothing leaves them but by their outputs."""
    nodes = {str(n.name): n for n in model.graph}
    order = list(nodes)
    graph = networkx.DiGraph([(n, r) for n in model.graph for v in n.outputs for r, _ in consumers(v)])
    everything = [name for block in structure.blocks for name in block.nodes]
    assert len(everything) == len(set(everything))
    for block in structure.blocks:
        inside = {nodes[name] for name in block.nodes}
        assert [n for n in order if n in set(block.nodes)] == list(block.nodes)
        behind = {d for n in inside if n in graph for d in networkx.descendants(graph, n)} - inside
        before = {a for n in inside if n in graph for a in networkx.ancestors(graph, n)} - inside
        assert not behind & before
        leaving = {str(v.name) for n in inside for v in n.outputs if v.is_graph_output() or any(r not in inside for r, _ in consumers(v))}
        assert {name for name in leaving if name in block.outputs} == set(block.outputs)
        assert leaving - set(block.outputs) <= {str(v.name) for n in inside for v in n.outputs if v.dtype != ir.DataType.FLOAT}
        assert any(layer.block is not None for layer in structure.layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_the_families_have_the_blocks_that_the_paper_counts(name: str) -> None:
    model, structure = found(exported(name, 128))
    assert kinds(structure) == COUNTS[name]
    check_blocks(model, structure)


@pytest.mark.slow
def test_a_larger_mobile_former_has_two_crossings_for_each_of_its_eleven_blocks_and_one_more() -> None:
    assert kinds(found(exported("mobile_former_151m", 128))[1]) == {"map to tokens": 12, "tokens to map": 11}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("mobilevitv2_050", 64), ("efficientformerv2_s0", 224)])
def test_the_size_of_the_image_changes_nothing(name: str, size: int) -> None:
    assert kinds(found(exported(name, size))[1]) == COUNTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientformerv2_s0"])
def test_nor_does_the_opset(name: str) -> None:
    assert kinds(found(exported(name, 128, opset=14))[1]) == COUNTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilevitv2_050", "mobilevit_xxs"])
def test_nor_does_an_open_batch_that_hides_shapes(name: str) -> None:
    assert kinds(found(exported(name, 128, opset=14, batch="n"))[1]) == COUNTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilevitv2_050", "mobile_former_26m"])
def test_nor_does_the_exporter(name: str) -> None:
    pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs onnxscript")
    assert kinds(found(exported(name, 128, dynamo=True))[1]) == COUNTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_nor_does_it_matter_if_the_file_was_simplified_before(name: str) -> None:
    simplified, equal = onnxsim.simplify(exported(name, 128 if "mobilevit" in name else 224))
    assert equal
    assert kinds(found(simplified)[1]) == COUNTS[name]


@pytest.mark.slow
def test_nor_does_who_wrote_the_network(tmp_path: Path) -> None:
    """Hugging Face's MobileViT unfolds and folds the map in other words than timm's."""
    transformers = pytest.importorskip("transformers", reason="Hugging Face transformers is not installed")
    torch.manual_seed(0)
    config = transformers.MobileViTConfig(hidden_sizes=[64, 80, 96], neck_hidden_sizes=[16, 16, 24, 48, 64, 80, 320], expand_ratio=2.0)
    model = transformers.MobileViTForImageClassification(config).eval()
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (torch.zeros(1, 3, 128, 128),), path, opset_version=17, input_names=["image"], dynamo=False)
    assert kinds(found(onnx.load(path))[1]) == COUNTS["mobilevit_xxs"]


def test_every_layer_is_listed_once_in_graph_order() -> None:
    model, structure = found(hybrid_model())
    layers = [str(n.name) for n in model.graph if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert [layer.name for layer in structure.layers] == layers
    products = {layer.name for layer in structure.layers if layer.product}
    assert products == {str(n.name) for n in model.graph if n.op_type == "MatMul" and constant(n.inputs[1]) is None}


def test_the_small_hybrid_network_has_one_round_trip() -> None:
    model, structure = found(hybrid_model())
    (block,) = structure.blocks
    assert block.kind == "round trip" and block.size == (8, 8)
    check_blocks(model, structure)


def structure_of(build: Callable[[Sketch], str]) -> Structure:
    """Of a network in a few operators, blocks checked."""
    sketch = Sketch()
    model = sketch.model(build(sketch))
    shapes = {n: s.shape for n, s in collect_statistics(model, feeds_for(model, 1), threads=1).tensors.items()}
    structure = find_structure(model, shapes)
    check_blocks(model, structure)
    return structure


def integers(s: Sketch, *numbers: int) -> str:
    return s.constant(list(numbers), np.int64)


def to_tokens(s: Sketch, x: str, channels: int, places: int) -> str:
    return s.add("Transpose", s.add("Reshape", x, integers(s, 1, channels, places)), perm=[0, 2, 1])


def to_map(s: Sketch, x: str, channels: int, size: int) -> str:
    return s.add("Reshape", s.add("Transpose", x, perm=[0, 2, 1]), integers(s, 1, channels, size, size))


def attend(s: Sketch, queries: str, x: str, channels: int = 8) -> str:
    q = s.add("MatMul", queries, s.normal(channels, channels))
    k, v = (s.add("MatMul", x, s.normal(channels, channels)) for _ in range(2))
    scores = s.add("Softmax", s.add("MatMul", q, s.add("Transpose", k, perm=[0, 2, 1])))
    return s.add("Add", queries, s.add("MatMul", scores, v))


def self_attend(s: Sketch, x: str) -> str:
    return attend(s, x, x)


def products_inside(structure: Structure) -> bool:
    return all(layer.block is not None for layer in structure.layers if layer.product)


def test_a_plain_convolutional_network_has_no_bridge() -> None:
    structure = structure_of(lambda s: s.conv(s.add("Relu", s.conv(s.input("x", 1, 8, 6, 6), 8)), 8))
    assert structure.blocks == () and len(structure.layers) == 2


def test_a_first_layer_on_every_second_row_and_column_is_no_bridge() -> None:
    def build(s: Sketch) -> str:
        x = s.input("x", 1, 3, 8, 8)
        starts = [integers(s, i, j) for i in (0, 1) for j in (0, 1)]
        parts = [s.add("Slice", x, start, integers(s, 8, 8), integers(s, 2, 3), integers(s, 2, 2)) for start in starts]
        return s.conv(s.add("Concat", *parts, axis=1), 12)

    assert structure_of(build).blocks == ()


@pytest.mark.parametrize("token", [False, True], ids=["", "with a class token"])
def test_a_plain_vision_transformer_is_one_way(token: bool) -> None:
    def build(s: Sketch) -> str:
        x = s.conv(s.input("x", 1, 8, 12, 12), 8, size=1, strides=[2, 2])
        x = to_tokens(s, x, 8, 36)
        x = s.add("Concat", s.normal(1, 1, 8), x, axis=1) if token else x
        for _ in range(2):
            x = self_attend(s, x)
        pooled = s.add("Gather", x, s.constant(0, np.int64), axis=1) if token else s.add("ReduceMean", x, integers(s, 1), keepdims=0)
        return s.add("Gemm", s.add("LayerNormalization", pooled, s.normal(8)), s.normal(8, 3))

    structure = structure_of(build)
    assert kinds(structure) == {"one way": 1} and products_inside(structure)
    assert [layer.block for layer in structure.layers] == [0] * 11 + [None]  # all but the classifier


def test_attention_in_shifted_windows_before_and_after_patches_are_merged_is_one_way() -> None:
    def in_windows(s: Sketch, x: str, count: int, channels: int) -> str:
        around = s.add("Concat", s.add("Slice", x, integers(s, 1), integers(s, 99), integers(s, 1)), front(s, x), axis=1)
        split = s.add("Reshape", around, integers(s, 1, count, 2, count, 2, channels))
        windows = s.add("Reshape", s.add("Transpose", split, perm=[0, 1, 3, 2, 4, 5]), integers(s, count**2, 4, channels))
        back = s.add("Reshape", attend(s, windows, windows, channels), integers(s, 1, count, count, 2, 2, channels))
        return s.add("Reshape", s.add("Transpose", back, perm=[0, 1, 3, 2, 4, 5]), integers(s, 1, 2 * count, 2 * count, channels))

    def front(s: Sketch, x: str) -> str:
        return s.add("Slice", x, integers(s, 0), integers(s, 1), integers(s, 1))

    def build(s: Sketch) -> str:
        x = s.add("Transpose", s.conv(s.input("x", 1, 4, 8, 8), 4), perm=[0, 2, 3, 1])
        x = in_windows(s, x, 4, 4)
        starts = [integers(s, i, j) for j in (0, 1) for i in (0, 1)]
        parts = [s.add("Slice", x, start, integers(s, 8, 8), integers(s, 1, 2), integers(s, 2, 2)) for start in starts]
        x = s.add("MatMul", s.add("Concat", *parts, axis=3), s.normal(16, 8))
        return s.add("ReduceMean", in_windows(s, x, 2, 8), integers(s, 1, 2))

    structure = structure_of(build)
    assert kinds(structure) == {"one way": 1} and all(layer.block == 0 for layer in structure.layers)


def test_linear_attention_brings_no_tokens_from_elsewhere() -> None:
    """What keys and values are multiplied to holds no places, but comes from the same map."""

    def build(s: Sketch) -> str:
        x = s.conv(s.input("x", 1, 8, 4, 4), 8)
        tokens = to_tokens(s, x, 8, 16)
        q, k, v = (s.add("MatMul", tokens, s.normal(8, 8)) for _ in range(3))
        context = s.add("MatMul", s.add("Transpose", k, perm=[0, 2, 1]), v)
        return s.add("Add", x, to_map(s, s.add("MatMul", q, context), 8, 4))

    structure = structure_of(build)
    assert kinds(structure) == {"round trip": 1} and products_inside(structure)


def test_tokens_that_a_map_is_read_into_cross_it() -> None:
    structure = structure_of(lambda s: attend(s, s.input("tokens", 1, 3, 8), to_tokens(s, s.conv(s.input("x", 1, 8, 4, 4), 8), 8, 16)))
    assert kinds(structure) == {"map to tokens": 1} and products_inside(structure)


def test_two_streams_whose_class_tokens_read_each_other_are_one_block() -> None:
    def build(s: Sketch) -> str:
        streams = [to_tokens(s, s.conv(s.input(name, 1, 8, n, n), 8, size=1), 8, n * n) for name, n in (("large", 4), ("small", 2))]
        tokens = [s.normal(1, 1, 8), s.normal(1, 1, 8)]
        for _ in range(2):
            joined = [s.add("Concat", t, x, axis=1) for t, x in zip(tokens, streams, strict=True)]
            joined = [self_attend(s, x) for x in joined]
            tokens = [s.add("Slice", x, integers(s, 0), integers(s, 1), integers(s, 1)) for x in joined]
            streams = [s.add("Slice", x, integers(s, 1), integers(s, 99), integers(s, 1)) for x in joined]
            tokens = [attend(s, t, x) for t, x in zip(tokens, streams[::-1], strict=True)]
        return s.add("Add", *tokens)

    structure = structure_of(build)
    assert len(structure.blocks) == 1 and all(layer.block == 0 for layer in structure.layers)


def test_a_layer_between_two_stages_belongs_to_the_one_behind_it() -> None:
    def build(s: Sketch) -> str:
        x = s.conv(s.input("x", 1, 8, 8, 8), 8, name="first", strides=[2, 2])
        x = to_map(s, self_attend(s, to_tokens(s, x, 8, 16)), 8, 4)
        x = s.conv(x, 8, name="between", strides=[2, 2])
        return s.conv(to_map(s, self_attend(s, to_tokens(s, x, 8, 4)), 8, 2), 8, name="last")

    structure = structure_of(build)
    assert [(b.kind, b.size) for b in structure.blocks] == [("round trip", (4, 4)), ("round trip", (2, 2))]
    assert {la.name: la.block for la in structure.layers if la.op_type == "Conv"} == {"first": 0, "between": 1, "last": 1}


def test_tokens_alone_have_no_map_to_bridge() -> None:
    structure = structure_of(lambda s: s.add("MatMul", s.input("x", 1, 5, 8), s.normal(8, 8)))
    assert structure.blocks == () and [layer.block for layer in structure.layers] == [None]


def test_explain_lists_blocks_and_layers(save_hybrid: SaveHybrid, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", str(save_hybrid()), "-q"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 bridge block, ") and "round trip" in out and "/head/conv/Conv" in out


def test_explain_writes_no_model(save_hybrid: SaveHybrid, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", str(save_hybrid()), str(tmp_path / "out.onnx")]) == 2
    assert not (tmp_path / "out.onnx").exists() and "--explain" in capsys.readouterr().err


def test_without_explain_the_result_needs_a_path(save_hybrid: SaveHybrid, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(save_hybrid())]) == 2
    assert "OUT.onnx" in capsys.readouterr().err
