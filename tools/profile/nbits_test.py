"""Layers with 4-bit weights answer as they should, and every form gets the costs of its own nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from converter.errors import UsageError
from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Sketch
from runtime_tests.emulation import emulator
from runtime_tests.emulation.emulator import Job, JobResult, Machine
from runtime_tests.emulation.environment import Environment, environment
from runtime_tests.emulation.setup import missing_steps
from runtime_tests.emulation.testing.stand_in import emulate_here
from tools.profile import nbits
from tools.profile.clock import prepared
from tools.profile.nbits import FORMS, counted, fused, in_blocks, main
from tools.profile.probes import Probe, feeds, probe_model


def layer(inner: int, outer: int) -> ir.Model:
    return probe_model([Probe("Gemm", ((5, inner),), ((inner, outer), (outer,)))])


@pytest.mark.parametrize(("inner", "block"), [(64, 32), (80, 32), (16, 128)])
def test_every_weight_is_within_half_a_step_of_what_is_stored(inner: int, block: int) -> None:
    model = ir.to_proto(layer(inner, 24))
    constants = {t.name: numpy_helper.to_array(t) for t in in_blocks(model, block).graph.initializer}
    weights = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "p0000_c0")
    codes, scales = constants["p0000_c0_codes"].astype(np.float32), constants["p0000_c0_scales"]
    assert scales.shape == (-(-inner // block), 24)
    steps = np.repeat(scales, block, axis=0)[:inner]
    assert np.all(np.abs(codes * steps - weights) <= steps / 2 * (1 + 1e-5))
    # the largest weight of a block has the largest code
    assert np.abs(codes[:block]).max(axis=0) == pytest.approx(7)


@pytest.mark.parametrize(("level", "decibel"), [(0, 100.0), (4, 40.0)])
@pytest.mark.parametrize(("inner", "block"), [(64, 32), (80, 32), (96, 64), (64, 128)])
def test_the_runtime_joins_weights_and_layer_and_computes_the_same(inner: int, block: int, level: int, decibel: float) -> None:
    """Without optimisations the weights become numbers first. At level 4 the input is rounded to 8 bits."""
    model = layer(inner, 24)
    stored = in_blocks(ir.to_proto(model), block)
    joined = fused(stored, level)
    ((kind, attributes),) = [(node.op_type, {a.name: a.i for a in node.attribute}) for node in joined.graph.node]
    assert kind == "MatMulNBits"
    assert (attributes["bits"], attributes["block_size"], attributes["accuracy_level"]) == (4, block, level)
    expected = run_session(open_session(stored, optimise=False), feeds(model))["p0000_y0"]
    got = run_session(open_session(joined), feeds(model))["p0000_y0"]
    error = float(np.mean((got - expected) ** 2))
    assert error <= float(np.mean(expected**2)) * 10 ** (-decibel / 10)


def test_stored_weights_are_those_of_linear_layers_in_float_however_they_lie(tmp_path: Path) -> None:
    """A Gemm with its weights on end, behind a convolution, in a model of an older opset."""
    s = Sketch(0)
    x = s.add("Flatten", s.conv(s.input("x", 1, 4, 3, 3), 4, size=1, outputs=8))
    path, made = tmp_path / "float.onnx", tmp_path / "stored.onnx"
    model = ir.to_proto(s.model(s.add("Gemm", x, s.normal(40, 72), transB=1)))
    onnx.save(model, path)
    assert main(["--store", str(path), "--out", str(made), "--block", "16"]) == 0
    kinds = [tensor.data_type for tensor in onnx.load(made).graph.initializer]
    assert kinds.count(onnx.TensorProto.INT4) == 1
    feed = {"x": np.random.default_rng(0).standard_normal((1, 4, 3, 3)).astype(np.float32)}
    (expected,), (got,) = (run_session(open_session(each), feed).values() for each in (model, made))
    assert 0 < float(np.mean((got - expected) ** 2)) < 0.05 * float(np.mean(expected**2))


@pytest.mark.parametrize(("behind_dq", "before_q"), [(True, False), (False, True)])
def test_a_layer_between_integer_operators_needs_barriers_to_be_joined_with_its_weights(behind_dq: bool, before_q: bool) -> None:
    """Without them the runtime makes numbers of the weights at every inference."""
    s = Sketch(0)
    scale, zero = s.constant(0.05), s.constant(128, np.uint8)
    x = s.input("x", 5, 64)
    if behind_dq:
        x = s.add("DequantizeLinear", s.add("QuantizeLinear", x, scale, zero), scale, zero)
    y = s.add("Gemm", x, s.normal(64, 24), s.normal(24))
    if before_q:
        y = s.add("DequantizeLinear", s.add("QuantizeLinear", y, scale, zero), scale, zero)
    model = in_blocks(ir.to_proto(s.model(y)), 32)
    counts = Counter(node.op_type for node in prepared(model, {}, {})[2])
    assert (counts["Gemm"], counts["MatMulNBits"], counts["DequantizeLinear"], counts["Max"]) == (0, 1, 1, 2)
    counts = Counter(node.op_type for node in prepared(_without_barriers(model), {}, {})[2])
    assert (counts["Gemm"], counts["MatMulNBits"], counts["DequantizeLinear"], counts["Max"]) == (1, 0, 2, 0)


def _without_barriers(model: onnx.ModelProto) -> onnx.ModelProto:
    read_instead = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Max"}
    nodes = [node for node in model.graph.node if node.op_type != "Max"]
    for node in nodes:
        node.input[:] = [read_instead.get(name, name) for name in node.input]
    for output in model.graph.output:
        output.name = read_instead.get(output.name, output.name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def test_a_layer_that_is_not_joined_is_an_error() -> None:
    with pytest.raises(UsageError, match="makes no MatMulNBits"):
        fused(ir.to_proto(layer(64, 24)), 4)


CALL = 1000
TAKEN = {"Gemm": 70, "QGemm": 30, "QuantizeLinear": 5, "MatMulNBits": 40}


def emulate_by_type(jobs: Sequence[Job], core: str, env: Environment) -> tuple[list[JobResult], Machine]:
    """Stands in for the emulated machine: runs the guest's code here, and counts by type of node, block and accuracy level."""
    results, machine = emulate_here(jobs, core, env)
    return [replace(result, instructions=(_taken(job.model),)) for job, result in zip(jobs, results, strict=True)], machine


def _taken(model: Path) -> int:
    nodes = onnx.load(model).graph.node
    extra = sum(int(a.i) for node in nodes for a in node.attribute if a.name in ("block_size", "accuracy_level"))
    return CALL + extra + sum(TAKEN.get(node.op_type, 0) for node in nodes)


def test_each_form_is_told_with_what_its_own_nodes_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers read as many elements: a Q of that size is counted once, and told of both."""
    monkeypatch.setattr(emulator, "emulate", emulate_by_type)
    rows, ran = counted([(4, 64, 24), (4, 64, 32), (2, 32, 32)], "cortex-a76")
    assert ran.startswith("cortex-a76")
    assert [row.size for row in rows] == [(4, 64, 24), (4, 64, 32), (2, 32, 32)]
    for row in rows:
        assert (row.in_float, row.in_integer, row.quantize) == (70, 30, 5)
        assert row.four_bits == {form: 40 + form.block + form.level for form in FORMS}
    _, inner, outer = rows[0].size
    in_float, in_integer, four_bits = rows[0].stored
    assert in_float == 4 * (inner * outer + outer)
    assert four_bits == inner * outer // 2 + 4 * 2 * outer + 4 * outer
    assert four_bits < in_integer < in_float


def test_the_command_prints_a_row_for_each_layer(capsys: pytest.CaptureFixture[str]) -> None:
    """By the clock of this machine."""
    assert main(["--sizes", "3x64x32", "1x32x48", "--runs", "2", "--visits", "1"]) == 0
    printed = capsys.readouterr().out
    assert [line.split("│")[1].strip() for line in printed.splitlines() if line.startswith("│")] == ["3 x 64 x 32", "1 x 32 x 48"]
    assert printed.count(" of 2 layers") == 3


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--sizes", "64x96"], "argument --sizes: '64x96' is no size such as 64x96x288"),
        (["--sizes", "64x0x9"], "argument --sizes: '64x0x9' is no size such as 64x96x288"),
        (["--core", "z80"], "core 'z80' is not known"),
        (["--runs", "0"], "nothing would be measured"),
        (["--store", "x.onnx"], "--store and --out need each other"),
    ],
)
def test_mistakes_are_told_in_three_lines(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert lines[0] == f"error: {what}" and len(lines) <= 3
    assert not printed.out


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_steps(environment())), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)")
def test_integer_kernels_beat_4_bit_weights_on_a_cortex_a76(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is why the converter has no form with 4-bit weights. Of those, the two that are cheapest for this layer."""
    monkeypatch.setattr(nbits, "FORMS", (nbits.FourBit(32, 4), nbits.FourBit(64, 4)))
    (row,), ran = counted([(64, 64, 64)], "cortex-a76")
    assert ran.startswith("cortex-a76")
    assert row.in_integer + row.quantize < row.cheapest
