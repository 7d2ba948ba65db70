from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.calibration.observer import CalibrationStatistics, TensorStats
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.graph.queries import consumers
from converter.partition.cut_graph import cut
from converter.testing.assignments import TARGET, cost_of
from converter.testing.sketch import Sketch

# The minimum cut against all assignments, with whole numbers as costs


@st.composite
def placements(draw: st.DrawFn) -> tuple[ir.Model, dict[str, SupportedForm | UnsupportedForm], CalibrationStatistics]:
    """A random graph of up to seven operators with random offers and costs."""
    sketch = Sketch()
    tensors = [sketch.input("x", 1)]
    offers: dict[str, SupportedForm | UnsupportedForm] = {}
    for i in range(draw(st.integers(1, 7))):
        name = f"op{i}"
        if draw(st.integers(0, 3)) == 0:
            source = draw(st.sampled_from(tensors))
            made = sketch.add("Relu", source, name=name)
            producer = next((n for n in sketch.nodes if source in n.output), None)
            alone = producer is not None and sum(list(n.input).count(source) for n in sketch.nodes) == 1
            if alone and draw(st.booleans()) and isinstance(offers[producer.name], SupportedForm):  # type: ignore[union-attr]
                offers[name] = SupportedForm("absorbed", float_cost=draw(st.integers(0, 20)), integer_cost=draw(st.integers(0, 20)))
                tensors = [t for t in tensors if t != source] + [made]
                continue
        else:
            made = sketch.add("Add", draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors)), name=name)
        tensors.append(made)
        if draw(st.integers(0, 4)) == 0:
            offers[name] = UnsupportedForm("refused")
        else:
            linear = draw(st.booleans())
            moving = len(sketch.nodes[-1].input) == 1 and draw(st.booleans())
            costs = draw(st.integers(0, 20)), draw(st.integers(0, 20))
            offers[name] = (
                SupportedForm("movement", {}, False, float(costs[0]), float(costs[1]))
                if moving
                else SupportedForm("weighted" if linear else "pointwise", {}, linear, float(costs[0]), float(costs[1]))
            )
    read = {i for n in sketch.nodes for i in n.input}
    made_all = [o for n in sketch.nodes for o in n.output]
    absorbed = {n.input[0] for n in sketch.nodes if isinstance(e := offers[n.name], SupportedForm) and e.form == "absorbed"}
    outputs = [o for o in made_all if o not in read or (o not in absorbed and draw(st.integers(0, 4)) == 0)]
    sizes = {t: draw(st.integers(1, 4)) for t in ["x", *made_all]}
    stats = {t: TensorStats(0, 1, np.zeros(1, np.float32), (n,)) for t, n in sizes.items()}
    return sketch.model(*outputs), offers, CalibrationStatistics(stats, 1)


numbers = st.lists(st.integers(0, 15), min_size=8, max_size=8)


@given(case=placements(), drawn=numbers, rounded=numbers)
@settings(max_examples=300, deadline=None)
def test_the_cut_is_as_cheap_as_the_cheapest_of_all_assignments(
    case: tuple[ir.Model, dict[str, SupportedForm | UnsupportedForm], CalibrationStatistics], drawn: list[int], rounded: list[int]
) -> None:
    model, offers, seen = case
    penalty = {f"op{i}": float(each) for i, each in enumerate(drawn) if each}
    rounding_cost = dict(zip(seen.tensors, map(float, rounded), strict=False))
    free = [name for name, entry in offers.items() if isinstance(entry, SupportedForm)]
    everything = (frozenset(c) for size in range(len(free) + 1) for c in itertools.combinations(free, size))
    cheapest = min(cost_of(integer, model, offers, seen, penalty, rounding_cost) for integer in everything)
    found = cut(model, offers, seen, TARGET, penalty, rounding_cost)
    assert found <= set(free)
    assert cost_of(found, model, offers, seen, penalty, rounding_cost) == cheapest


# Copies


def with_copies(
    model: ir.Model, offers: dict[str, SupportedForm | UnsupportedForm], seen: CalibrationStatistics, originals: set[str]
) -> tuple[ir.Model, dict[str, SupportedForm | UnsupportedForm], CalibrationStatistics]:
    """The same graph, in which every second reader of the tensors named reads a copy."""
    graph = ir.from_proto(ir.to_proto(model)).graph
    offers, tensors = dict(offers), dict(seen.tensors)
    for value in [*graph.inputs, *(o for n in graph for o in n.outputs)]:
        absorbing = [n for n, _ in consumers(value) if isinstance(e := offers[str(n.name)], SupportedForm) and e.form == "absorbed"]
        if value.name not in originals or absorbing or not consumers(value):
            continue
        readers = consumers(value)[::2]
        copy = ir.node("Identity", [value], name=f"copy of {value.name}")
        copy.outputs[0].name, copy.outputs[0].type = f"{value.name}_entering", value.type
        for node, index in readers:
            node.replace_input_with(index, copy.outputs[0])
        graph.insert_before(graph[0], [copy]) if value.producer() is None else graph.insert_after(value.producer(), [copy])
        offers[str(copy.name)] = SupportedForm("requantize", integer_cost=1000.0)
        tensors[str(copy.outputs[0].name)] = tensors[str(value.name)]
    return ir.Model(graph, ir_version=9), offers, CalibrationStatistics(tensors, 1)


@given(case=placements(), drawn=st.sets(st.integers(-1, 6)))
@settings(max_examples=100, deadline=None)
def test_copies_change_nothing_about_what_runs_in_integer(
    case: tuple[ir.Model, dict[str, SupportedForm | UnsupportedForm], CalibrationStatistics], drawn: set[int]
) -> None:
    model, offers, seen = case
    copied = with_copies(model, offers, seen, {"x" if i < 0 else f"op{i}.0" for i in drawn})
    found = cut(*copied, TARGET)
    assert cost_of(found & set(offers), model, offers, seen) == cost_of(cut(model, offers, seen, TARGET), model, offers, seen)
    for node in copied[0].graph:
        if node.op_type == "Identity" and node.name in found:
            producer = node.inputs[0].producer()  # type: ignore[union-attr]
            assert producer is not None and producer.name in found, "a copy of float numbers does not need codes"
