"""An inserted equalization as it is deployed: a Q with one scale per channel, a DQ with a single one, and an integer convolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.forms.form import UnsupportedForm
from converter.quantization.parameters import QuantParams
from converter.runtime.session import open_session, run_session
from converter.testing.oldest_runtime import OLDEST, run_oldest
from converter.testing.sketch import TARGET_NAMES, Planned, Sketch, emitted, feeds_for, kernels_of, plan_for, settings_for
from converter.transforms.equalization.apply import Equalization, apply_equalizations, channel_grid
from converter.transforms.equalization.find import find_sites
from converter.verify.simulation import simulate

C = 16
SCALES = tuple(np.geomspace(0.02, 2.0, C))
targets = pytest.mark.parametrize("target", TARGET_NAMES)


def network(producer: str) -> tuple[ir.Model, str]:
    """A map made in some way, read by a depthwise and by a dense convolution and by others; and the name of the map."""
    s = Sketch()
    x = s.conv(s.input("x", 1, C, 8, 8), C, name="first")
    if producer == "silu":
        x = s.silu(x)
    elif producer == "gelu":
        x = s.add("Gelu", x)
    elif producer == "sum":
        x = s.add("Add", x, s.conv(s.silu(x), C))
    elif producer == "transposed":
        x = s.add("ConvTranspose", x, s.normal(C, C, 3, 3, scale=0.1), pads=[1, 1, 1, 1])
    elif producer == "layout":
        x = s.add("Reshape", s.add("Gelu", s.add("Reshape", x, s.constant([1, C, 64], np.int64))), s.constant([1, C, 8, 8], np.int64))
    return s.model(s.conv(x, C, group=C, name="depthwise"), s.conv(x, C, outputs=8, name="dense"), s.add("Sigmoid", x)), x


def planned_with_equalization(producer: str, target: str, bits: tuple[int, int] = (8, 8), *, excluded: tuple[str, ...] = ()) -> Planned:
    model, tensor = network(producer)
    equalized = apply_equalizations(model, find_sites(model), {tensor: Equalization(SCALES)})
    return plan_for(equalized, target, bits=bits, excluded=excluded)


def per_channel(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    shapes = {i.name: i.dims for i in proto.graph.initializer}
    return [n for n in proto.graph.node if n.op_type == "QuantizeLinear" and len(shapes[n.input[1]]) == 1]


@targets
@pytest.mark.parametrize("producer", ["nothing", "silu", "gelu", "sum", "layout", "transposed"])
def test_both_convolutions_are_integer_and_equal_the_simulation(producer: str, target: str, tmp_path: Path) -> None:
    planned = planned_with_equalization(producer, target)
    proto = emitted(planned)
    assert len(per_channel(proto)) == 1
    convolutions = sum(n.op_type == "Conv" for n in planned.model.graph)
    kernels = kernels_of(proto, planned.target, tmp_path)
    assert (kernels["QLinearConv"], kernels["Conv"], kernels["FusedConv"]) == (convolutions, 0, 0)
    session = open_session(proto, threads=1, settings=settings_for(planned.target))
    for feed in feeds_for(planned.model, 3, seed=5):
        got, wanted = run_session(session, feed), simulate(planned.model, planned.plan, feed)
        for name in wanted:
            if producer in (
                "gelu",
                "layout",
                "transposed",
            ):  # the runtime's own kernels differ from torch's in the last bit, which may move a code
                assert np.mean(got[name] != wanted[name]) < 0.01
            else:
                np.testing.assert_array_equal(got[name], wanted[name])


@pytest.mark.skipif(not OLDEST.is_dir(), reason="there is no older ONNX Runtime; the Makefile installs one")
@targets
@pytest.mark.parametrize("producer", ["nothing", "silu", "sum", "layout"])
def test_the_oldest_runtime_runs_the_same_kernels(producer: str, target: str, tmp_path: Path) -> None:
    planned = planned_with_equalization(producer, target)
    proto, feed = emitted(planned), feeds_for(planned.model, 1, seed=5)[0]
    old = run_oldest(proto, feed, settings_for(planned.target), tmp_path)
    assert old["kernels"]["QLinearConv"] == kernels_of(proto, planned.target, tmp_path)["QLinearConv"]
    session = open_session(proto, threads=1, settings=settings_for(planned.target))
    for name, value in run_session(session, feed).items():
        assert np.mean(old["outputs"][name] != value) < 0.01


@targets
def test_fewer_bits_are_kept_inside_their_grid(target: str) -> None:
    model, tensor = network("silu")
    equalized = apply_equalizations(model, find_sites(model), {tensor: Equalization(SCALES)})
    planned = plan_for(equalized, target, bits=(6, 6))
    grid = planned.plan.tensors[f"{tensor}_scaled"].params
    assert grid is not None and grid.bits == 6
    proto = emitted(planned)
    (quantize,) = per_channel(proto)
    (clip,) = [n for n in proto.graph.node if n.input[0] == quantize.output[0]]
    limits = {i.name: onnx.numpy_helper.to_array(i).item() for i in proto.graph.initializer if i.name in clip.input[1:]}
    assert (clip.op_type, sorted(limits.values())) == ("Clip", [grid.qmin, grid.qmax])
    session = open_session(proto, threads=1, settings=settings_for(planned.target))
    for feed in feeds_for(planned.model, 2, seed=5):
        wanted = simulate(planned.model, planned.plan, feed)
        for name, value in run_session(session, feed).items():
            np.testing.assert_array_equal(value, wanted[name])


@targets
def test_a_convolution_that_stays_float_reads_unrounded_numbers(target: str) -> None:
    planned = planned_with_equalization("silu", target, excluded=("dense",))
    proto = emitted(planned)
    assert len(per_channel(proto)) == 1
    (multiplication,) = [n for n in proto.graph.node if n.name.endswith("_scaled_Mul")]
    (dense,) = [n for n in proto.graph.node if n.name == "dense"]
    assert dense.input[0] == multiplication.output[0]
    session = open_session(proto, threads=1, settings=settings_for(planned.target))
    for feed in feeds_for(planned.model, 2, seed=5):
        got, wanted = run_session(session, feed), simulate(planned.model, planned.plan, feed)
        for name in wanted:
            np.testing.assert_allclose(got[name], wanted[name], atol=1e-4 * float(np.abs(wanted[name]).max()))


def test_the_multiplication_is_never_an_integer_operator() -> None:
    planned = planned_with_equalization("silu", "arm64")
    (name,) = [n for n in planned.offers if n.endswith("_scaled_Mul")]
    entry = planned.offers[name]
    assert isinstance(entry, UnsupportedForm) and "scales of the Q" in entry.reason
    assert planned.plan.ops[name].runs == "float"


def test_the_grid_of_each_channel() -> None:
    model, tensor = network("silu")
    equalized = apply_equalizations(model, find_sites(model), {tensor: Equalization((0.5, 2.0) * (C // 2))})
    node = equalized.graph.node(f"{tensor}_scaled_Mul")
    grid = channel_grid(node, QuantParams((0.25,), (-3,)))
    assert (grid.axis, grid.scale[:2], grid.zero_point) == (1, (0.125, 0.5), (-3,) * C)
    with pytest.raises(ValueError, match="too small"):
        channel_grid(node, QuantParams((2.0**-60,), (0,)))
