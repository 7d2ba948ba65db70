from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.canonicalise import canonicalise
from converter.errors import UsageError
from converter.graph.exclusions import excluded_nodes
from converter.graph.source_nodes import name_after_source, source_nodes
from converter.testing.models import hybrid_model


def feed() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {"image": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)}


@pytest.fixture(scope="module", params=[13, 17])
def pair(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, ir.Model]:
    """A model and its canonical form, named as in a conversion; at opset 13 LayerNorm is spelled out."""
    source = hybrid_model(opset=request.param)
    canonical = canonicalise(source, [feed()]).model
    name_after_source(source, canonical)
    return source, canonical


def types(canonical: ir.Model, names: frozenset[str]) -> list[str]:
    return sorted(n.op_type for n in canonical.graph if str(n.name) in names)


def test_node_names_stay_unique(pair: tuple[onnx.ModelProto, ir.Model]) -> None:
    names = [str(n.name) for n in pair[1].graph]
    assert len(names) == len(set(names))


def test_products_bear_names_of_the_input_file(pair: tuple[onnx.ModelProto, ir.Model]) -> None:
    known = {n.name for n in pair[0].graph.node}
    products = [str(n.name) for n in pair[1].graph if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(products) >= 8 and set(products) <= known


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/stem/conv/Conv", ["Conv"]),
        ("/stem/bn/BatchNormalization", ["Conv"]),  # folded into the convolution
        ("/mlp/fc1/MatMul", ["Gemm"]),
        ("/attn/Softmax", ["Softmax"]),
        ("/classifier/*", ["Gemm"]),
        ("LayerNormalization", ["LayerNormalization"] * 2),  # the canonical type, however the file spells it
        ("/pool/GlobalAveragePool", ["GlobalAveragePool"]),
    ],
)
def test_patterns_find_what_the_named_operators_became(pair: tuple[onnx.ModelProto, ir.Model], pattern: str, expected: list[str]) -> None:
    source, canonical = pair
    assert types(canonical, excluded_nodes([pattern], source, canonical)) == expected


def test_operators_inside_a_fused_one_mean_the_fused_one() -> None:
    source = hybrid_model(opset=13)
    canonical = canonicalise(source, [feed()]).model
    name_after_source(source, canonical)
    assert types(canonical, excluded_nodes(["/attn/norm/Sqrt"], source, canonical)) == ["LayerNormalization"]
    assert "Gelu" in types(canonical, excluded_nodes(["/mlp/act/Erf"], source, canonical))


def test_all_of_a_type(pair: tuple[onnx.ModelProto, ir.Model]) -> None:
    source, canonical = pair
    assert types(canonical, excluded_nodes(["Conv"], source, canonical)) == ["Conv"] * 5


def test_patterns_add_up(pair: tuple[onnx.ModelProto, ir.Model]) -> None:
    source, canonical = pair
    one, two = ("/stem/conv/Conv",), ("/head/conv/Conv",)
    both = excluded_nodes(one + two, source, canonical)
    assert both == excluded_nodes(one, source, canonical) | excluded_nodes(two, source, canonical)


def test_each_projection_finds_its_product_even_if_they_are_merged(pair: tuple[onnx.ModelProto, ir.Model]) -> None:
    source, canonical = pair
    found = [types(canonical, excluded_nodes([f"/attn/{part}/MatMul"], source, canonical)) for part in ("query", "key", "value")]
    assert all("Gemm" in f or "MatMul" in f for f in found)


def test_an_operator_stands_only_for_its_neighbourhood(pair: tuple[onnx.ModelProto, ir.Model]) -> None:
    """Also behind a Shape whose result is folded: it does not depend on what lies upstream."""
    source, canonical = pair
    for name, nodes in source_nodes(source, canonical).items():
        assert len(nodes) <= 12, (name, [n.name for n in nodes])
    upstream = excluded_nodes(["/stem/conv/Conv"], source, canonical)
    assert len(upstream) == 1


def test_only_movements_have_no_origin(pair: tuple[onnx.ModelProto, ir.Model]) -> None:
    source, canonical = pair
    stands_for = source_nodes(source, canonical)
    bare = [n.op_type for n in canonical.graph if not stands_for.get(str(n.name))]
    assert set(bare) <= {"Constant", "Split", "Reshape"}  # what a rewrite puts around a product


@pytest.mark.parametrize(
    ("pattern", "near"), [("/stem/conv/Conf", "'/stem/conv/Conv'"), ("conv", "'Conv'"), ("/attn/softmax*", "'/attn/Softmax'")]
)
def test_a_pattern_that_matches_nothing_lists_the_nearest_names(pair: tuple[onnx.ModelProto, ir.Model], pattern: str, near: str) -> None:
    with pytest.raises(UsageError, match="matches no operator") as caught:
        excluded_nodes([pattern], *pair)
    assert near in caught.value.hint and pattern in caught.value.where


def test_names_with_brackets_match_themselves() -> None:
    source = hybrid_model()
    source.graph.node[0].name = "stem[0]"
    canonical = canonicalise(source, [feed()]).model
    name_after_source(source, canonical)
    assert types(canonical, excluded_nodes(["stem[0]"], source, canonical)) == ["Conv"]


def test_without_names_the_canonical_ones_count() -> None:
    source = hybrid_model(named=False)
    canonical = canonicalise(source, [feed()]).model
    name_after_source(source, canonical)
    conv = next(str(n.name) for n in canonical.graph if n.op_type == "Conv")
    assert excluded_nodes([conv], source, canonical) == {conv}
    with pytest.raises(UsageError) as caught:
        excluded_nodes([conv + "x"], source, canonical)
    assert conv in caught.value.hint
