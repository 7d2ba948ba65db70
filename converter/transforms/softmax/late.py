"""A softmax in front of a product whose rows are divided by their sums behind it, so that its exponentials can be codes.

``softmax(S) V = (E V) / (E 1)`` with ``E = exp(S - max(S))``, the maximum taken over each row (as in FlashAttention, Dao et al., arXiv
2205.14135, section 3.1). The largest number of each row of E is 1: a grid that is the same for all rows fits all of them, which it does not
where the rows of a softmax are flat and steep.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.marks import SOFTMAX_ROWS, mark_makers
from converter.graph.queries import attributes, constant, consumers, data_inputs, is_graph_output, relabel_factor, sole_consumer
from converter.targets.costs import LATE_SOFTMAX_KIND, features, form_costs
from converter.targets.target import Target
from converter.transforms.transform import GraphFacts

__all__ = ["find_late", "make_late"]

FLATTEST, STEEPEST = 4.0, 32.0
"""Between the lowest and the highest score of all rows. Below, the tail of a sigmoid is no exponential; above, the steps of a grid are."""


def find_late(model: ir.Model, facts: GraphFacts, ranges: Mapping[str, tuple[float, float]], target: Target) -> tuple[str, ...]:
    """Names of the softmaxes that can be divided later and cost less then, in graph order.

    Args:
        model: canonical float model.
        facts: shapes of its tensors, and what stays as it is.
        ranges: lowest and highest number observed of each tensor.
        target: for the costs of both; none are found where it has none of the integer form, or codes without a sign.
    """
    cost = target.costs.get(LATE_SOFTMAX_KIND)
    if cost is None or cost.integer is None or not target.signed_activations:
        return ()
    found = [node for node in model.graph if _product(node, facts) is not None]
    return tuple(str(node.name) for node in found if _fits(node, ranges) and _pays(node, facts, target))


def make_late(model: ir.Model, facts: GraphFacts, names: Collection[str]) -> ir.Model:
    """A copy of a model in which some softmaxes are divided behind the product that reads them; it computes the same.

    The softmax becomes the exponential of its name; the product keeps its name, and the quotient the name of its output.

    Raises:
        ValueError: there is no such operator, or what reads it is no product of computed tensors.
    """
    result: ir.Model = ir.from_proto(ir.to_proto(model))
    nodes, builder = {str(node.name): node for node in result.graph}, GraphBuilder(result.graph)
    for name in names:
        node = nodes.get(name)
        product = None if node is None else _product(node, facts)
        if node is None or product is None:
            raise ValueError(f"operator '{name}' is no softmax over rows that a product of computed tensors alone reads")
        _write(builder, node, product)
    return result


def _product(node: ir.Node, facts: GraphFacts) -> ir.Node | None:
    """The product that alone reads a softmax over its rows; None if there is none, or for another operator."""
    if node.op_type != "Softmax" or node.inputs[0] is None or constant(node.inputs[0]) is not None:
        return None
    scores, shares = node.inputs[0], node.outputs[0]
    rank = len(facts.shapes.get(str(shares.name), ()))
    if rank < 3 or attributes(node).get("axis", -1) not in (-1, rank - 1) or is_graph_output(shares):
        return None
    product = sole_consumer(shares)
    if not _multiplied(scores) or product is None or product.op_type != "MatMul":
        return None
    row = None if shares.shape is None else shares.shape[-1]
    if not isinstance(row, int) or consumers(shares) != [(product, 0)] or constant(product.inputs[1]) is not None:
        return None
    if any(str(each.name) in facts.excluded for each in (node, product)) or len(consumers(scores)) > 1 or is_graph_output(scores):
        return None
    return product


def _multiplied(scores: ir.Value) -> bool:
    """They come from a product, perhaps times a positive number, so that codes of them need no Q."""
    maker = scores.producer()
    while maker is not None and relabel_factor(maker) is not None:
        ((_, value),) = data_inputs(maker)
        maker = value.producer()
    return maker is not None and maker.op_type == "MatMul"


def _fits(node: ir.Node, ranges: Mapping[str, tuple[float, float]]) -> bool:
    assert node.inputs[0] is not None
    scores = ranges.get(str(node.inputs[0].name))
    return scores is not None and FLATTEST <= scores[1] - scores[0] <= STEEPEST


def _pays(node: ir.Node, facts: GraphFacts, target: Target) -> bool:
    """Exponentials, sums and quotients in integer take less than the softmax in float and the Q behind it."""
    product = _product(node, facts)
    assert product is not None
    found, quotients = features(node, facts.shapes), facts.shapes.get(str(product.outputs[0].name), ())
    elements, rows = found.get("element", 0.0), found.get("row", 0.0)
    matrices = math.prod(facts.shapes[str(node.outputs[0].name)][:-2])
    summed = {"node": 1.0, "element": rows, "input": elements, "row": rows, "mac": elements, "matrix": float(matrices)}
    divided = {"node": 1.0, "element": float(math.prod(quotients)), "input": math.prod(quotients) + rows, "row": rows}
    exponentials, sums = form_costs(LATE_SOFTMAX_KIND, found, target)[1], form_costs("MatMul", summed, target)[1]
    if exponentials is None or sums is None:
        return False
    late = exponentials + sums + form_costs("Div", divided, target)[0]
    return late < form_costs("Softmax", found, target)[0] + target.quantize(round(elements))


def _write(builder: GraphBuilder, node: ir.Node, product: ir.Node) -> None:
    scores, shares, name = node.inputs[0], node.outputs[0], str(node.name)
    assert scores is not None and shares.shape is not None
    column = ir.Shape([*shares.shape[:-1], 1])
    last = builder.initializer(f"{name}_last", np.array([-1], np.int64))
    largest = builder.add("ReduceMax", [scores, last], {"keepdims": 1}, name=f"{name}_largest", like=scores, shape=column, before=node)
    below = builder.add("Sub", [scores, largest], name=f"{name}_below", like=scores, shape=shares.shape, before=node)
    node.op_type = "Exp"
    node.attributes.clear()
    node.replace_input_with(0, below)
    mark_makers([largest, below, shares], SOFTMAX_ROWS)
    row = shares.shape[-1]
    assert isinstance(row, int)
    ones = builder.initializer(f"{name}_ones", np.ones((*[1] * (len(shares.shape) - 2), row, 1), np.float32))
    sums = builder.add("MatMul", [shares, ones], name=f"{name}_sums", like=scores, shape=column, before=product)
    result, graph = product.outputs[0], product.graph
    assert graph is not None
    quotient = builder.add("Div", [result, sums], name=f"{product.name}_divided", like=result, after=product)
    for user, index in consumers(result):
        if user is not quotient.producer():
            user.replace_input_with(index, quotient)
    for place, output in enumerate(graph.outputs):
        if output is result:
            graph.outputs[place] = quotient
    result.name, quotient.name = builder.unique(f"{product.name}_undivided"), result.name
