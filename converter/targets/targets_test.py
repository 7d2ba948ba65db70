from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from converter.errors import UsageError
from converter.forms.registry import RULES, WITHOUT_FORM
from converter.targets import TARGETS, Target, find_target
from converter.targets.costs import between_codes, cheaper_form, convolution_features, form_costs

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
LAYERS = {"Conv", "PointwiseConv", "DepthwiseConv", "GroupedConv", "Linear", "MatMul"}


@targets
def test_every_operator_that_is_offered_has_a_cost(target: Target) -> None:
    # a copy costs a DQ and a Q, which are priced apart, and not every target has a price for the rows of a softmax
    known = {kind for kind, cost in target.costs.items() if cost.integer is not None}
    apart = {"Identity", "DequantizeLinear", "Gemm", "ReduceMax", "Sub", "Exp"}
    assert set(RULES) - set(WITHOUT_FORM) - apart | LAYERS <= known


@targets
def test_layers_cost_by_the_multiplication(target: Target) -> None:
    """A layer whose costs knew nothing of its size could be placed anywhere."""
    for kind in LAYERS:
        cost = target.costs[kind]
        assert cost.integer is not None
        assert all(prices.get("mac", 0) > 0 or prices.get("column", 0) > 0 for prices in (cost.float, cost.integer))


EMULATED = [TARGETS[name] for name in ("arm64", "arm64-v8.0", "arm64-a55", "arm64-i8mm")]


COUNTED = {
    "stem 7x7, stride 2": ([1, 16, 32, 32], [16, 3, 7, 7], {"strides": [2, 2], "pads": [3] * 4}, 1_995_006, 867_704),
    "stem 7x7, stride 4, grey": ([1, 16, 16, 16], [16, 1, 7, 7], {"strides": [4, 4], "pads": [3] * 4}, 183_818, 189_409),
    "stem 5x5, four channels": ([1, 24, 28, 28], [24, 4, 5, 5], {"strides": [2, 2], "pads": [2] * 4}, 1_265_039, 658_541),
    "stem 3x3": ([1, 16, 32, 32], [16, 3, 3, 3], {"strides": [2, 2], "pads": [1] * 4}, 400_600, 375_748),
    "patches of 4": ([1, 48, 56, 56], [48, 3, 4, 4], {"strides": [4, 4]}, 3_814_083, 2_134_789),
    "patches of 16": ([1, 192, 14, 14], [192, 3, 16, 16], {"strides": [16, 16]}, 10_836_967, 2_905_070),
    "depthwise 3x3": ([1, 64, 32, 32], [64, 1, 3, 3], {"group": 64, "pads": [1] * 4}, 1_166_868, 444_117),
    "depthwise 5x5": ([1, 64, 32, 32], [64, 1, 5, 5], {"group": 64, "pads": [2] * 4}, 5_837_253, 1_194_025),
    "depthwise 7x7, stride 2": ([1, 64, 14, 14], [64, 1, 7, 7], {"group": 64, "strides": [2, 2], "pads": [3] * 4}, 5_568_306, 410_299),
}
"""Output, weights and attributes of convolutions, and its instructions in float and in integer: Cortex-A76, ONNX Runtime 1.32.0."""


@pytest.mark.parametrize(("written", "weight", "attrs", "floats", "codes"), COUNTED.values(), ids=COUNTED)
def test_prices_say_what_convolutions_were_counted_to_take(
    written: list[int], weight: list[int], attrs: dict[str, Any], floats: int, codes: int
) -> None:
    size = float(math.prod(written))
    amounts = {"node": 1.0, "element": size, "row": size / written[-1], **convolution_features(written, weight, attrs)}
    predicted = form_costs("DepthwiseConv" if "group" in attrs else "Conv", amounts, TARGETS["arm64"])
    assert list(predicted) == pytest.approx([floats, codes], rel=0.1)


@pytest.mark.parametrize("target", EMULATED, ids=lambda target: target.name)
def test_operators_without_a_form_would_not_pay_in_one(target: Target) -> None:
    """Even where the float kernel needs a DQ and a Q: a Softmax of rows of 16 and more, a MaxPool, and averages that are convolutions."""

    for width in (16, 49, 256):
        amounts = {"node": 1.0, "input": 64.0 * width, "element": 64.0 * width, "row": 64.0}
        codes = form_costs("Softmax", amounts, target)[1]
        assert codes is not None and codes > between_codes("Softmax", amounts, target)
    for side in (7, 14, 32):
        size = 64.0 * side**2
        amounts = {"node": 1.0, "input": size, "element": size, "row": 64.0 * side, "window": 9 * size}
        codes = form_costs("MaxPool", amounts, target)[1]
        assert codes is not None and codes > between_codes("MaxPool", amounts, target)
        codes = form_costs("AveragePool", amounts, target)[1]
        convolution = amounts | convolution_features([1, 64, side, side], [64, 1, 3, 3], {"group": 64, "pads": [1] * 4})
        assert codes is not None and codes > cheaper_form("DepthwiseConv", convolution, target)


def test_the_facts_about_types() -> None:
    signed = {name for name, target in TARGETS.items() if target.signed_activations}
    assert signed == {name for name in TARGETS if name.startswith("arm64")}
    assert {t.depthwise_weight_bits for t in TARGETS.values()} == {8}


def test_weights_that_do_not_saturate_by_hand() -> None:
    """In 16 bits, 2 x 255 x 63 = 32130 and 2 x 127 x 127 = 32258 fit below 32768; 2 x 255 x 127 = 64770 does not."""
    assert [TARGETS["x86"].dense_weight_bits(a) for a in (8, 7, 6, 5, 4)] == [7, 8, 8, 8, 8]
    for name in set(TARGETS) - {"x86"}:
        assert [TARGETS[name].dense_weight_bits(a) for a in (8, 4)] == [8, 8]


def test_conversions_cost_by_node_and_element() -> None:
    target = TARGETS["arm64"]
    assert target.quantize(100) == target.quantize_node + 100 * target.quantize_element
    assert target.dequantize(100) == target.dequantize_node + 100 * target.dequantize_element


def test_names_agree_with_keys() -> None:
    assert {name: target.name for name, target in TARGETS.items()} == {name: name for name in TARGETS}


def test_a_target_is_found_by_name_or_read_from_a_file(tmp_path: Path) -> None:
    assert find_target("x86") is TARGETS["x86"]
    built_in = Path(__file__).parent / "machines" / "x86.toml"
    (tmp_path / "board.toml").write_text(built_in.read_text().replace('"x86"', '"board"'))
    assert find_target(str(tmp_path / "board.toml")).name == "board"


@pytest.mark.parametrize(("text", "what"), [("riscv", "'riscv' is not known"), ("absent.toml", "No such file")])
def test_unknown_targets_are_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        find_target(text)
