"""What is said of the worst tensors follows from their figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converter.diagnosis.advice import MOST_LISTED, advise, describe
from converter.diagnosis.records import ChannelSpread, Histogram, TensorFigures
from converter.quantization.parameters import QuantParams

GRID = QuantParams((1.0 / 32,), (0,), bits=8, signed=True)
"""From -4 to 3.97."""

PLAIN = TensorFigures(
    name="made",
    operator="layer",
    op_type="Conv",
    segment=0,
    kind="measured",
    params=GRID,
    shape=(1, 20, 4, 4),
    low=-3.5,
    high=3.5,
    local_db=38.0,
    accumulated_db=36.0,
    clipped=0.0,
    sensitivity=0.01,
    runs="integer",
    float_cost=3e6,
    integer_cost=1e6,
    reason="",
    reads=("before",),
    histogram=Histogram(-4.0, 4.0, (1,) * 64),
    spread=ChannelSpread(1, 20, 17, 2.0),
    equalization="impossible",
)


def said(tensor: TensorFigures, *others: TensorFigures) -> tuple[str, str]:
    """What was found, as one text, and what can be done."""
    tensors = (tensor, *others)
    found, do = describe(tensor, {t.name: t for t in tensors}, {t.operator: t for t in tensors if t.kind != "weight"}, "instructions")
    return " ".join(found), do


def test_a_tensor_with_nothing_unusual() -> None:
    found, do = said(PLAIN)
    assert found == "Nothing unusual about its numbers; this is what 8 bits give here: its rounding alone leaves 38.0 dB."
    assert do == "If accuracy is short, keep it float with --exclude 'layer': 2.0 million instructions more, not counting conversions."


def test_a_tensor_is_float_only_if_what_writes_it_and_all_that_read_it_is() -> None:
    """Readers behind an operator that only moves its numbers count too; those in float do not."""
    moved = replace(PLAIN, name="moved", operator="reshape", kind="shared", reads=("made",), float_cost=2e6)
    behind = replace(PLAIN, name="behind", operator="product", reads=("moved",))
    floats = replace(PLAIN, name="floats", operator="norm", reads=("made",), runs="float")
    _, do = said(PLAIN, moved, behind, floats, replace(PLAIN, name="other", operator="other"))
    assert do == (
        "If accuracy is short, keep it float with --exclude 'layer' --exclude 'reshape' --exclude 'product', which write and read it in "
        "integer: 5.0 million instructions more, not counting conversions."
    )


def test_many_readers_are_counted() -> None:
    _, do = said(PLAIN, *(replace(PLAIN, name=f"r{i}", operator=f"r{i}", reads=("made",)) for i in range(7)))
    assert "--exclude for each of the 8 operators that write and read it in integer: 16.0 million instructions more" in do


def test_a_weight_is_float_if_its_operator_is() -> None:
    weight = replace(PLAIN, name="w", kind="weight", reads=())
    reader = replace(PLAIN, name="next", operator="next", reads=("made",))
    found, do = said(weight, PLAIN, reader)
    assert found.startswith("Its integers are 38.0 dB from its numbers") and "--exclude 'layer':" in do


@pytest.mark.parametrize(
    "equalization, words",
    [
        ("impossible", "they cannot be equalized, as the operators around cannot all take a scale per channel exactly"),
        ("possible", "they could be equalized, which the method found no gain in"),
        ("applied", "although they were equalized already"),
    ],
)
def test_a_channel_much_wider_than_the_others(equalization: str, words: str) -> None:
    found, _ = said(replace(PLAIN, spread=ChannelSpread(1, 20, 17, 40.0), equalization=equalization))
    assert found.startswith("Channel 17 is 40 times wider than the median of 20 channels, and all share one scale")
    assert words in found


def test_weights_have_a_scale_for_each_channel_so_that_none_is_too_wide() -> None:
    found, _ = said(replace(PLAIN, kind="weight", spread=ChannelSpread(0, 20, 17, 40.0)))
    assert "Channel" not in found


def test_clipped_by_choice() -> None:
    found, _ = said(replace(PLAIN, clipped=0.02, low=-9.0))
    assert found == (
        "2.0% of its numbers are clipped: the codes reach from -4 to 3.97, calibration saw -9 to 3.5. "
        "Finer steps for the rest were worth more to the method."
    )


def test_weights_clipped_by_choice() -> None:
    grids = QuantParams((0.01, 0.1), (0, 0), axis=0, narrow=True)
    found, _ = said(replace(PLAIN, kind="weight", params=grids, clipped=0.052))
    assert found.startswith("5.2% of its numbers are clipped, each at an end of the range of its channel. Finer steps")


def test_clipped_for_want_of_calibration_data() -> None:
    found, do = said(replace(PLAIN, clipped=0.02, histogram=Histogram(-4.0, 4.0, (1,) * 64, above=3)))
    assert "2.0% of its numbers are clipped" in found and "worth more" not in found
    assert do.startswith("Calibrate on more, or more varied, samples")


def test_numbers_that_crowd_on_few_steps() -> None:
    counts = [0] * 256
    counts[128], counts[255] = 99, 1  # of bins a step wide
    found, _ = said(replace(PLAIN, histogram=Histogram(-4.0, 4.0, tuple(counts))))
    assert found == "90% of its numbers lie on about 1 of its 256 steps, as few large numbers set the range."


def test_error_that_arrives_from_before() -> None:
    before = replace(PLAIN, name="before", operator="earlier", accumulated_db=13.0)
    found, _ = said(replace(PLAIN, accumulated_db=12.0), before)
    assert found == (
        "Most of its error arrives from before: it has 12.0 dB, where its own rounding alone would leave 38.0 dB; "
        "'before', which it is computed from, has 13.0 dB already."
    )


@pytest.mark.parametrize("weights, cause", [(True, "its rounded weights add to the error"), (False, "Gelu makes the error larger")])
def test_error_that_its_operator_makes_larger(weights: bool, cause: str) -> None:
    before = replace(PLAIN, name="before", operator="earlier", accumulated_db=28.6)
    tensor = replace(PLAIN, op_type="Gelu", local_db=22.6, accumulated_db=16.3)
    found, _ = said(tensor, before, *([replace(PLAIN, name="w", kind="weight")] if weights else []))
    assert found.startswith("Most of its error is not its own rounding's: it has 16.3 dB, where its own rounding alone would leave 22.6 dB")
    assert "'before', which it is computed from, has 28.6 dB: " in found and cause in found and "already" not in found


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"operator": "", "float_cost": None}, "No operator around it runs in integer"),
        ({"runs": "float"}, "No operator around it runs in integer"),
        ({"integer_cost": 4e6}, "'layer': no more instructions, not"),
        ({"float_cost": 1e6 + 2500}, "2.5 thousand instructions more"),
    ],
)
def test_what_to_do_names_the_operator_and_its_price(changes: dict[str, object], words: str) -> None:
    _, do = said(replace(PLAIN, **changes))  # type: ignore[arg-type]
    assert words in do


def test_the_worst_are_those_that_add_most_to_the_loss() -> None:
    tensors = [replace(PLAIN, name=f"t{i}", sensitivity=float(i % 7), local_db=float(i)) for i in range(30)]
    worst, ranking = advise(tensors, "instructions")
    assert [a.tensor for a in worst] == ["t6", "t13", "t20", "t27", "t5", "t12", "t19", "t26", "t4", "t11"]
    assert len(worst) == MOST_LISTED and ranking == "by what their rounding adds to the loss"


def test_without_sensitivities_the_lowest_ratio_counts() -> None:
    tensors = [replace(PLAIN, name=f"t{db}", sensitivity=None, local_db=db) for db in (30.0, 10.0, 20.0)]
    moved = replace(PLAIN, name="moved", kind="shared", sensitivity=None, local_db=5.0)
    worst, ranking = advise([*tensors, moved], "instructions")
    assert [a.tensor for a in worst] == ["t10.0", "t20.0", "t30.0"], "a tensor that shares another's grid is not rounded anew"
    assert ranking == "by the SQNR of their rounding alone"


def test_a_float_network_has_none() -> None:
    assert advise([replace(PLAIN, kind="float", params=None, local_db=None, sensitivity=None)], "instructions")[0] == ()
