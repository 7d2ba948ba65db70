"""Products by Einsum become MatMul: the same numbers, whatever the labels; what is no such product stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.canonicalise.einsums import multiply_out_einsums
from converter.runtime.session import run_model
from converter.testing.sketch import Sketch

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2, "f": 3}


def network(equation: str, left: tuple[int | str, ...], right: tuple[int | str, ...], *, weights: str = "") -> ir.Model:
    """An Einsum of two inputs, or of an input and a constant on one side."""
    s = Sketch()
    operands = [
        s.normal(*(n for n in shape if isinstance(n, int))) if weights == name else s.input(name, *shape)
        for name, shape in (("left", left), ("right", right))
    ]
    return s.model(s.add("Einsum", *operands, equation=equation))


def same(
    equation: str, left: tuple[int, ...], right: tuple[int, ...], weights: str = "", declared: tuple[int | str, ...] | None = None
) -> ir.Model:
    """Rewrite, run both on random numbers and compare; returns the new model."""
    model = network(equation, declared or left, right, weights=weights)
    generator = np.random.default_rng(0)
    feed = {
        name: generator.standard_normal(shape).astype(np.float32) for name, shape in (("left", left), ("right", right)) if name != weights
    }
    (expected,) = run_model(ir.to_proto(model), feed).values()
    assert multiply_out_einsums(model) == [str(model.graph.outputs[0].name)]
    (got,) = run_model(ir.to_proto(model), feed).values()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    return model


@st.composite
def products(draw: st.DrawFn) -> tuple[str, str, str]:
    """Labels of two operands and a result that has all but those that are summed over."""
    labels = draw(st.permutations("abcdef"))
    kinds = [draw(st.sampled_from(["batch", "left", "right", "sum"])) for _ in labels[:-1]] + ["sum"]
    sides = {"batch": (1, 1, 1), "left": (1, 0, 1), "right": (0, 1, 1), "sum": (1, 1, 0)}
    terms = ["".join(draw(st.permutations([c for c, k in zip(labels, kinds, strict=True) if sides[k][i]]))) for i in range(3)]
    return terms[0], terms[1], terms[2]


@settings(deadline=None, max_examples=60)
@given(products(), st.sampled_from(["", "left", "right"]))
def test_any_product_computes_the_same(terms: tuple[str, str, str], weights: str) -> None:
    a, b, out = terms
    model = same(f"{a},{b}->{out}", tuple(SIZES[c] for c in a), tuple(SIZES[c] for c in b), weights)
    assert [n.op_type for n in model.graph].count("MatMul") == 1
    assert "Einsum" not in [n.op_type for n in model.graph]


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("...ij,...jk", (2, 3, 4), (2, 4, 5)),
        ("...hd,...kd->...hk", (2, 2, 3, 4), (2, 2, 5, 4)),
        ("...d,dk", (2, 3, 4), (4, 5)),
        ("ij,jk", (2, 3), (3, 4)),
    ],
)
def test_ellipses_and_implied_results_are_spelled_out(equation: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    same(equation, left, right)


def test_an_open_batch_stays_open() -> None:
    """Heads and tokens of attention with relative positions: the batch is read where it lies."""
    model = same("bhqd,qkd->bhqk", (2, 3, 5, 4), (5, 6, 4), "right", ("batch", 3, 5, 4))
    assert "MatMul" in [n.op_type for n in model.graph]


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [("ii,ij->ij", (3, 3), (3, 4)), ("i,j->ij", (3,), (4,)), ("ijk,jl->il", (2, 3, 4), (3, 5)), ("bi,bi->bi", (2, 3), (2, 3))],
    ids=["diagonal", "outer product", "sum over one operand", "no sum"],
)
def test_what_is_no_matrix_product_stays(equation: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    assert multiply_out_einsums(network(equation, left, right)) == []


def test_sizes_that_broadcast_stay() -> None:
    assert multiply_out_einsums(network("bij,bjk->bik", (1, 2, 3), (4, 3, 5))) == []
