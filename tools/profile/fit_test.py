from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.targets import TARGETS
from converter.targets.target import FEATURES
from tools.front import Point, on_front
from tools.profile.fit import Fit, fit, fit_all, terms_of
from tools.profile.samples import Sample


def test_prices_are_found_again() -> None:
    samples = [
        Sample("Conv", {"node": 1.0, "mac": float(m), "element": float(e)}, 50.0 + 0.25 * m) for m, e in [(100, 7), (400, 3), (1000, 90)]
    ]
    found = fit(samples, ("node", "mac", "element"), floor=1.0)
    assert found.prices == {"node": 50.0, "mac": 0.25}
    assert found.largest < 1e-9


def test_no_price_is_negative() -> None:
    """Without the bound, a node would cost -1 and an element 2; with it, of (p - 1)^2 + (p/2 - 1)^2 the least is at 6/5."""
    samples = [Sample("Softmax", {"node": 1.0, "element": 1.0}, 1.0), Sample("Softmax", {"element": 1.0}, 2.0)]
    assert fit(samples, ("node", "element"), floor=0.0).prices == {"element": 1.2}


def test_a_clamp_is_part_of_a_layer_and_no_node_of_its_own() -> None:
    """Otherwise the noise of its smallest probe would be the price of a node, for which even one by itself would run in integer."""
    samples = [Sample("Relu", {"node": 1.0, "element": size}, 2.0 * size) for size in (10.0, 400.0)]
    assert fit_all(samples, 0.0)["Relu"].prices == {"element": 2.0}


prices = st.integers(0, 9999).map(lambda digits: digits / 100)


@given(st.tuples(prices, prices, prices))
def test_whatever_the_prices_they_are_found_again(wanted: tuple[float, float, float]) -> None:
    terms = ("node", "element", "row")
    amounts = [(1.0, 10.0, 5.0), (1.0, 64.0, 4.0), (1.0, 300.0, 100.0), (1.0, 7.0, 7.0), (1.0, 90.0, 1.0)]
    samples = [Sample("Softmax", dict(zip(terms, each, strict=True)), float(np.dot(each, wanted))) for each in amounts]
    found = fit(samples, terms, floor=1.0)
    assert [found.prices.get(term, 0.0) for term in terms] == pytest.approx(wanted, abs=1e-6)
    assert found.samples == 5 and found.largest < 1e-6


def costing(*costs: float, kind: str = "Sigmoid") -> list[Sample]:
    return [Sample(kind, {"node": 1.0}, cost) for cost in costs]


@pytest.mark.parametrize(("share", "left_out"), [(0.2, True), (3.0, False)])
def test_a_price_that_hardly_makes_the_error_less_is_left_out(share: float, left_out: bool) -> None:
    """Costs are 10 an element and off by a tenth either way; what a row adds is a small or a large part of that."""
    amounts = [{"element": 100.0, "row": row} for row in (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0)]
    off = [1.1, 0.9] * 4
    samples = [Sample("Softmax", each, 1000.0 * (error + 0.05 * share * each["row"])) for each, error in zip(amounts, off, strict=True)]
    assert ("row" not in fit(samples, ("element", "row"), floor=0.0).prices) == left_out


def test_errors_are_relative() -> None:
    """Of (p - 1)^2 + (p/3 - 1)^2 the least is at 12/10: 1/5 of the first cost and 3/5 of the second."""
    found = fit(costing(1.0, 3.0), ("node",), floor=0.0)
    assert (found.prices, found.samples) == ({"node": 1.2}, 2)
    assert (found.median, found.largest) == pytest.approx((0.4, 0.6))


def test_the_floor_is_added_to_what_errors_are_relative_to() -> None:
    """Of ((p - 1) / 2)^2 + ((p - 3) / 4)^2 the least is at 7/5: 2/10 and 4/10."""
    found = fit(costing(1.0, 3.0), ("node",), floor=1.0)
    assert found.prices == {"node": 1.4}
    assert (found.median, found.largest) == pytest.approx((0.3, 0.4))


def test_the_error_in_the_middle_is_that_of_half_the_samples() -> None:
    found = fit(costing(2.0, 2.0, 2.0, 2.0, 1.0), ("node",), floor=0.0)
    assert found.prices == {"node": 1.5} and (found.median, found.largest) == pytest.approx((0.25, 0.5))


def test_prices_have_four_digits() -> None:
    assert fit(costing(1234.56), ("node",), floor=1.0).prices == {"node": 1235.0}
    assert fit(costing(0.000123456), ("node",), floor=1.0).prices == {"node": 0.0001235}


def test_what_does_not_occur_has_no_price() -> None:
    assert fit(costing(5.0), ("node", "block"), floor=1.0).prices == {"node": 5.0}
    assert fit(costing(0.0, 0.0), ("node",), floor=1.0) == Fit({}, 2, 0.0, 0.0)


def test_each_kind_is_fitted_by_itself_on_what_it_may_depend_on() -> None:
    """A row is a price of Softmax, but not of Sigmoid."""
    amounts = [{"node": 1.0, "element": e, "row": r} for e, r in ((10.0, 1.0), (40.0, 8.0), (90.0, 3.0))]
    samples = [Sample(kind, each, 2.0 + 3.0 * each["row"]) for kind in ("Softmax", "Sigmoid") for each in amounts]
    found = fit_all(samples, floor=1.0)
    assert list(found) == ["Sigmoid", "Softmax"]
    assert found["Softmax"].prices == {"node": 2.0, "row": 3.0}
    assert "row" not in found["Sigmoid"].prices and found["Sigmoid"].largest > 0.1


def test_a_convolution_depends_on_how_its_kernel_goes_through_memory() -> None:
    """In float on what is copied one by one, in integer on the runs of codes that are read."""
    amounts = [
        {"column": 100.0, "run": 10.0},
        {"column": 100.0, "strided_column": 100.0, "run": 30.0},
        {"column": 400.0, "strided_column": 400.0, "run": 20.0},
    ]
    prices = {"column": 2.0, "strided_column": 5.0, "run": 80.0}
    samples = [Sample("Conv", each, sum(prices[term] * each.get(term, 0.0) for term in prices)) for each in amounts]
    floats = [replace(s, cost=s.cost - 80.0 * s.features["run"]) for s in samples]
    codes = [replace(s, cost=s.cost - 5.0 * s.features.get("strided_column", 0.0)) for s in samples]
    assert fit_all(floats, 1.0)["Conv"].prices == {"column": 2.0, "strided_column": 5.0}
    assert fit_all(codes, 1.0, integer=True)["Conv"].prices == {"column": 2.0, "run": 80.0}


def test_every_kind_depends_on_what_a_target_file_may_say() -> None:
    kinds = {kind for target in TARGETS.values() for kind in target.costs}
    assert all(set(terms_of(kind, integer=integer)) <= FEATURES.keys() for kind in kinds for integer in (False, True))


def test_the_front_leaves_out_what_is_beaten() -> None:
    cheap, dear, beaten = (Point(n, c, s, None, 0) for n, c, s in (("a", 0.5, 20.0), ("b", 0.8, 30.0), ("c", 0.9, 25.0)))
    assert on_front([beaten, dear, cheap]) == [cheap, dear]
