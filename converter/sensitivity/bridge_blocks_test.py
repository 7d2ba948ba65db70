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


def plain(build: Callable[[Sketch], str]) -> Structure:
    sketch = Sketch()
    model = sketch.model(build(sketch))
    return find_structure(model, {n: s.shape for n, s in collect_statistics(model, feeds_for(model, 1), threads=1).tensors.items()})


def test_a_plain_convolutional_network_has_no_bridge() -> None:
    structure = plain(lambda s: s.conv(s.add("Relu", s.conv(s.input("x", 1, 8, 6, 6), 8)), 8))
    assert structure.blocks == () and len(structure.layers) == 2


def test_a_plain_vision_transformer_is_one_way() -> None:
    def build(s: Sketch) -> str:
        x = s.conv(s.input("x", 1, 8, 12, 12), 8, size=1, strides=[2, 2])
        x = s.add("Transpose", s.add("Reshape", x, s.constant([1, 8, 36], np.int64)), perm=[0, 2, 1])
        q, k, v = (s.add("MatMul", x, s.normal(8, 8)) for _ in range(3))
        scores = s.add("Softmax", s.add("MatMul", q, s.add("Transpose", k, perm=[0, 2, 1])))
        return s.add("Add", x, s.add("MatMul", scores, v))

    assert kinds(plain(build)) == {"one way": 1}


def test_tokens_alone_have_no_map_to_bridge() -> None:
    structure = plain(lambda s: s.add("MatMul", s.input("x", 1, 5, 8), s.normal(8, 8)))
    assert structure.blocks == () and [layer.block for layer in structure.layers] == [None]


def test_explain_lists_blocks_and_layers(save_hybrid: SaveHybrid, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", str(save_hybrid()), "-q"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 bridge blocks, ") and "round trip" in out and "/head/conv/Conv" in out


def test_explain_writes_no_model(save_hybrid: SaveHybrid, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", str(save_hybrid()), str(tmp_path / "out.onnx")]) == 2
    assert not (tmp_path / "out.onnx").exists() and "--explain" in capsys.readouterr().err


def test_without_explain_the_result_needs_a_path(save_hybrid: SaveHybrid, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(save_hybrid())]) == 2
    assert "OUT.onnx" in capsys.readouterr().err
