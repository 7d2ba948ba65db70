"""Each proposal is about the nodes it should be, no node belongs to two, and nothing is won where a kernel is below its bound already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from onnx import TensorProto, helper

from tools.upstream import bounds
from tools.upstream.kernels import Kernel, kernel_of
from tools.upstream.proposals import PROPOSALS
from tools.upstream.rules import RULES, table_groups

IMAGE = (1, 64, 8, 8)


def kernel(
    op_type: str,
    reads: str,
    writes: str,
    shape: tuple[int, ...] = IMAGE,
    *,
    taken: float = 1e6,
    constants: Mapping[str, tuple[int, ...]] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    **attributes: Any,
) -> Kernel:
    """Tensors are of codes and of one shape, unless told otherwise."""
    fixed = dict(constants or {})
    names = reads.split()
    sizes = {**dict.fromkeys((*names, writes), shape), **fixed, **(shapes or {})}
    return Kernel(op_type, taken, tuple(names), (writes,), sizes, frozenset(fixed), frozenset(sizes), attributes)


SCALAR: dict[str, tuple[int, ...]] = {"scale": (), "zero": ()}


def convolution(channels: int, size: int, *, group: int = 1, taken: float = 1e6) -> Kernel:
    constants = {**SCALAR, "w": (64, channels // group, size, size)}
    image = {"x": (1, channels, 8, 8)}
    return kernel("QLinearConv", "x scale zero w", "y", taken=taken, constants=constants, shapes=image, group=group)


def sigmoid(x: str, y: str) -> Kernel:
    return kernel("QLinearSigmoid", f"{x} scale zero", y, constants=SCALAR)


def product(a: str, b: str, y: str, op_type: str = "QLinearMul") -> Kernel:
    return kernel(op_type, f"{a} scale zero {b}", y, constants=SCALAR)


def test_every_proposal_has_a_rule() -> None:
    assert set(RULES) == {proposal.name for proposal in PROPOSALS}


def test_a_gate_and_its_product_are_one_table() -> None:
    gain = RULES["table"]([sigmoid("x", "s"), product("x", "s", "y"), convolution(64, 1)])
    assert (gain.nodes, gain.today) == (1, 2e6)
    assert gain.bound == bounds.TABLE * 64 * 64


def test_two_outputs_of_one_function_are_two_tables() -> None:
    kernels = [sigmoid("x", "s"), product("x", "s", "y"), product("s", "other", "z", "QLinearAdd"), convolution(64, 1)]
    ((group, ends),) = table_groups(kernels)
    assert [k.writes[0] for k in group] == ["s", "y"]
    assert [k.writes[0] for k in ends] == ["s", "y"]


@pytest.mark.parametrize(
    "other",
    [
        product("a", "b", "y"),  # of two tensors
        kernel("QLinearMul", "x scale factors", "y", constants={"scale": (), "factors": (64, 1, 1)}),  # another function for each channel
        kernel("QLinearMul", "x scale few", "y", constants={"scale": ()}, shapes={"few": (1, 64, 1, 1)}),
        convolution(64, 1),
    ],
)
def test_what_depends_on_more_than_one_code_is_no_table(other: Kernel) -> None:
    assert table_groups([other]) == []


def test_numbers_in_float_are_no_codes() -> None:
    clip = kernel("Clip", "x", "y")
    in_float = Kernel(clip.op_type, 1e6, clip.reads, clip.writes, clip.shapes, frozenset(), frozenset(), {})
    assert table_groups([in_float]) == []


def test_a_clip_that_takes_less_than_a_table_stays() -> None:
    gain = RULES["table"]([kernel("Clip", "x", "y", taken=0.44 * 4096)])
    assert gain.nodes == 0


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (convolution(64, 1), {"requantization"}),
        (convolution(64, 3), {"requantization"}),
        (convolution(3, 3), {"stem"}),
        (convolution(12, 3), {"stem"}),
        (convolution(64, 3, group=64), set()),
        (kernel("QGemm", "x scale zero w", "y", (8, 32), constants={**SCALAR, "w": (64, 32)}, shapes={"x": (8, 64)}), {"linear"}),
        (
            kernel("MatMulIntegerToFloat", "a b scale", "y", (4, 8, 8), constants=SCALAR, shapes={"a": (4, 8, 16), "b": (4, 16, 8)}),
            {"scores"},
        ),
        (kernel("QuantizeLinear", "x scale zero", "y", constants=SCALAR), {"quantize"}),
        (kernel("Softmax", "x", "y"), {"softmax"}),
        (kernel("InstanceNormalization", "x", "y"), {"layer_norm"}),
    ],
)
def test_a_node_belongs_to_one_proposal_at_most(given: Kernel, names: set[str]) -> None:
    found = {name for name, rule in RULES.items() if rule([given]).nodes}
    assert found == names
    for name in names:
        gain = RULES[name]([given])
        assert gain.today == 1e6
        assert 0 < gain.bound < 1e6


def test_no_more_is_won_than_there_is() -> None:
    gain = RULES["requantization"]([convolution(64, 1, taken=10.0), convolution(64, 1)])
    assert gain.nodes == 2
    assert gain.bound == 10.0 + bounds.product(64 * 64 * 64, 64 * 64)


def test_a_stem_pays_for_sums_codes_and_unfolding() -> None:
    (gain,) = [RULES["stem"]([convolution(3, 3)])]
    assert gain.bound == bounds.product(64 * 64 * 27, 64 * 64) + bounds.unfolded(64, 3, 9)


def test_a_node_that_is_a_model_says_what_work_it_is() -> None:
    value = helper.make_tensor_value_info
    weights = helper.make_tensor("w", TensorProto.INT8, [4, 2, 1, 1], [1] * 8)
    node = helper.make_node("QLinearConv", ["x", "", "w"], ["y"], group=2)
    ends = [value("x", TensorProto.INT8, [1, 4, 2, 2])], [value("y", TensorProto.FLOAT, [1, 4, 2, 2])]
    found = kernel_of(helper.make_model(helper.make_graph([node], "g", *ends, [weights])), 5.0)
    assert (found.op_type, found.instructions, found.attributes) == ("QLinearConv", 5.0, {"group": 2})
    assert found.computed == ("x",)
    assert found.elements == 16
    assert found.codes == {"x", "w"}
