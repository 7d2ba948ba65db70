from __future__ import annotations

import onnx_ir as ir
import pytest
import torch

from converter.canonicalise.recognition.subgraphs import Subgraph, evaluate, is_pointwise, subgraphs
from converter.testing.rewrites import Draft, weights


def all_cones(draft: Draft, output: str, *more: str) -> list[Subgraph]:
    graph = ir.from_proto(draft.model(output, *more)).graph
    order = {node: i for i, node in enumerate(graph)}
    producer = next(n for n in graph if n.outputs[0].name == output)
    return list(subgraphs(producer.outputs[0], order, is_pointwise))


def described(found: list[Subgraph]) -> list[tuple[str, list[str]]]:
    return [(str(c.source.name), [n.op_type for n in c.nodes]) for c in found]


def test_cones_grow_from_the_output_to_where_paths_meet() -> None:
    draft = Draft(x=(1, 4))
    y = draft.add("Mul", "x", draft.add("Sigmoid", draft.add("Neg", draft.add("Abs", "x"))))
    assert described(all_cones(draft, y)) == [("x", ["Abs", "Neg", "Sigmoid", "Mul"])]


def test_every_smaller_cone_comes_first() -> None:
    draft = Draft(x=(1, 4))
    y = draft.add("Exp", draft.add("Neg", draft.add("Abs", "x")))
    assert described(all_cones(draft, y)) == [("Neg_1_out", ["Exp"]), ("Abs_0_out", ["Neg", "Exp"]), ("x", ["Abs", "Neg", "Exp"])]


@pytest.mark.parametrize("seen_by", ["output", "reader"])
def test_a_cone_ends_at_a_tensor_that_others_see(seen_by: str) -> None:
    draft = Draft(x=(1, 4))
    inside = draft.add("Neg", draft.add("Abs", "x"))
    y = draft.add("Exp", inside)
    found = all_cones(draft, y, inside if seen_by == "output" else draft.add("Transpose", inside))
    assert described(found) == [("Neg_1_out", ["Exp"])]


def test_a_cone_ends_at_a_node_that_is_not_allowed() -> None:
    draft = Draft(x=(4, 4))
    y = draft.add("Exp", draft.add("MatMul", "x", weights(4, 4)))
    assert described(all_cones(draft, y)) == [("MatMul_0_out", ["Exp"])]


def test_two_sources_make_no_cone() -> None:
    draft = Draft(x=(1, 4), y=(1, 4))
    assert all_cones(draft, draft.add("Mul", "x", draft.add("Exp", "y"))) == []


def test_evaluation_takes_constants_in() -> None:
    draft = Draft(x=(1, 4))
    subgraph = all_cones(draft, draft.add("Mul", draft.add("Add", "x", 1.0), 3.0))[-1]
    y = evaluate(subgraph, torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert y is not None
    assert y.tolist() == [6.0, 9.0]
    assert y.dtype == torch.float64


def test_what_torch_has_no_rule_for_is_not_evaluated() -> None:
    draft = Draft(x=(1, 4))
    graph = ir.from_proto(draft.model(draft.add("Unique", "x"))).graph
    assert evaluate(Subgraph(graph[0].inputs[0], graph[0].outputs[0], (graph[0],)), torch.zeros(3)) is None


def test_integers_are_not_pointwise() -> None:
    draft = Draft(x=(1, 4))
    exponent = draft.add("Cast", "x", to=7)
    graph = ir.from_proto(draft.model(draft.add("Pow", "x", exponent))).graph
    assert not is_pointwise(graph[1])
