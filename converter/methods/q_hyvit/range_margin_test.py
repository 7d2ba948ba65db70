"""Of grids that do about as well the widest, and never one that does much worse."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.methods.judging.range_candidates import covering
from converter.methods.judging.tensor_error import TensorSample, grid_errors
from converter.methods.q_hyvit.range_margin import with_margin
from converter.quantization.parameters import QuantParams


def witness_of(values: torch.Tensor, fisher: torch.Tensor | None = None) -> TensorSample:
    return TensorSample(torch.arange(values.shape[1]), values, torch.ones_like(values) if fisher is None else fisher)


def noise(seed: int, tails: float = 1.0) -> torch.Tensor:
    drawn = torch.randn(4, 2000, generator=torch.Generator().manual_seed(seed))
    return drawn.sign() * drawn.abs() ** tails


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 100), st.sampled_from([4, 6, 8]), st.floats(0.2, 1.5), st.floats(1.0, 3.0), st.booleans())
def test_it_is_never_narrower_and_errs_little_more(seed: int, bits: int, part: float, tails: float, asymmetric: bool) -> None:
    x = noise(seed, tails)
    low, high = float(x.min()), float(x.max())
    grid, tensor_sample = covering(part * low, part * high, bits, True), witness_of(x)
    wider = with_margin(grid, tensor_sample, low, high, asymmetric=asymmetric)
    before, after = grid_errors(tensor_sample, [grid, wider]).tolist()
    assert wider.scale[0] >= 0.999 * grid.scale[0]
    assert after <= 1.25 * before
    assert asymmetric or wider.zero_point == grid.zero_point


def test_at_eight_bits_a_tensor_without_tails_is_covered_whole() -> None:
    """Steps are so fine there that it costs next to nothing."""
    x = noise(0)
    grid = with_margin(covering(-2.9, 2.9, 8, True), witness_of(x), float(x.min()), float(x.max()))
    assert grid.lowest < 0.99 * float(x.min()) and grid.highest > 0.99 * float(x.max())


def test_what_is_rare_and_large_stays_cut_off_where_that_would_cost_the_others() -> None:
    x = noise(0)
    x[:, 0] = 40.0
    silent = torch.ones_like(x)
    silent[:, 0] = 0.0
    assert with_margin(covering(-2.9, 2.9, 4, True), witness_of(x, silent), float(x.min()), 40.0).highest < 5.0


def test_other_samples_are_better_off_at_eight_bits() -> None:
    """A grid of least error for few samples with long tails, on many more of them."""
    seen, later = noise(1, 2.0)[:, :400], noise(2, 2.0)
    low, high = float(seen.min()), float(seen.max())
    tight = min((covering(low * f, high * f, 8, True) for f in torch.linspace(0.3, 1.2, 91).tolist()), key=lambda g: _error(g, seen))
    assert _error(with_margin(tight, witness_of(seen), low, high), later) < _error(tight, later)


def test_what_nobody_looks_at_gets_all_the_room() -> None:
    x = noise(3)
    grid = with_margin(covering(-1.0, 1.0, 8, True), witness_of(x, torch.zeros_like(x)), float(x.min()), float(x.max()))
    assert grid == covering(1.15 * float(x.min()), 1.15 * float(x.max()), 8, True)


def _error(grid: QuantParams, x: torch.Tensor) -> float:
    return float(grid_errors(witness_of(x), [grid])[0])
