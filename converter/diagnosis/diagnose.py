"""Diagnose: measure every tensor of a planned model, and say what stands out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from converter.calibration.observer import TensorStats
from converter.diagnosis.accumulate import Accumulator
from converter.diagnosis.advice import advise
from converter.diagnosis.chain import chain_of
from converter.diagnosis.records import Diagnosis, TensorFigures
from converter.diagnosis.side_by_side import side_by_side
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.graph.queries import constant, data_inputs, is_float
from converter.plan.constants import weight_codes
from converter.plan.records import OpPlan, Plan
from converter.quantization.parameters import QuantParams, dequantize
from converter.runtime.session import Feed
from converter.sensitivity.bridge_blocks import find_structure
from converter.targets import Target
from converter.targets.costs import operator_costs
from converter.torch_backend.ops import UnknownOperatorError
from converter.torch_backend.runtime_kernels import Sessions
from converter.torch_backend.workers import one_thread_each
from converter.transforms.equalization.find import find_sites
from converter.transforms.equalization.transform import Equalizations

__all__ = ["MANY_TENSORS", "MOST_SAMPLES", "computed_tensors", "diagnose", "new_accumulator"]

MOST_SAMPLES = 8
"""More change the decibels by less than a reader would notice."""

_FINE_BINS, _COARSE_BINS = 96, 48
MANY_TENSORS = 1000
"""From here on histograms are coarse, so that a page stays small."""

_IN_FLOAT = "stored in 8 bits, but read in float"

Offers = Mapping[str, SupportedForm | UnsupportedForm]


def diagnose(
    model: ir.Model,
    plan: Plan,
    offers: Offers,
    seen: Mapping[str, TensorStats],
    feeds: Sequence[Feed],
    target: Target,
    *,
    tensor_sensitivity: Mapping[str, float] = MappingProxyType({}),
    operator_sensitivity: Mapping[str, float] = MappingProxyType({}),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Diagnosis:
    """Run a planned model beside the float one, and measure each tensor.

    Args:
        model: canonical model with the plan's transforms.
        plan: for it.
        offers: for the costs of integer forms.
        seen: calibration statistics of this model.
        feeds: samples to measure on, best those that chose no scale; the first 8 count.
        target: for all other costs.
        tensor_sensitivity: what the rounding of tensors adds to the loss, by their names.
        operator_sensitivity: the same of the weights of operators, by the operators' names.
        progress: called with (samples done, samples in all).
    """
    shapes = {name: stats.shape for name, stats in seen.items()}
    segments = chain_of(model, find_structure(model, shapes).blocks, shapes)
    names = [str(v.name) for v in computed_tensors(model)]
    bins = _COARSE_BINS if len(names) + sum(len(op.constants) for op in plan.ops.values()) > MANY_TENSORS else _FINE_BINS
    params = {name: tensor.params for name, tensor in plan.tensors.items()}
    accumulators = {name: new_accumulator(params.get(name), seen[name], bins) for name in names if name in seen}
    measured, note = _measured(model, plan, feeds[:MOST_SAMPLES], accumulators, progress)
    equalization = _equalization(model, plan, shapes)
    assembly = _Assembly(plan, offers, seen, shapes, target, tensor_sensitivity, operator_sensitivity, equalization)
    places = {name: number for number, segment in enumerate(segments) for name in segment.operators}
    tensors = [
        assembly.tensor(value, measured.get(str(value.name)), places) for value in computed_tensors(model) if str(value.name) in seen
    ]
    for node in model.graph:
        tensors += assembly.weights(node, places, bins)
    order = {str(node.name): place for place, node in enumerate(model.graph)}
    tensors.sort(key=lambda t: order.get(t.operator, -1))  # stable: weights stay behind what their operator computes
    worst, ranking = advise(tensors, target.unit)
    return Diagnosis(tuple(tensors), segments, worst, ranking, 0 if note else len(feeds[:MOST_SAMPLES]), note)


def computed_tensors(model: ir.Model) -> list[ir.Value]:
    """Computed float tensors, inputs first."""
    computed = [o for node in model.graph for o in node.outputs if is_float(o) and constant(o) is None]
    return [*(v for v in model.graph.inputs if is_float(v)), *computed]


def new_accumulator(params: QuantParams | None, stats: TensorStats, bins: int) -> Accumulator:
    """An empty one, whose histogram reaches over what calibration has seen, and over the grid."""
    low, high = stats.minimum, stats.maximum
    if params is not None and params.axis is None:
        low, high = min(low, params.lowest), max(high, params.highest)
    return Accumulator(params, low, high, bins)


def _measured(
    model: ir.Model,
    plan: Plan,
    feeds: Sequence[Feed],
    accumulators: dict[str, Accumulator],
    progress: Callable[[int, int], None],
) -> tuple[dict[str, Accumulator], str]:
    """The same accumulators, filled; and why they are not, if the network cannot be simulated."""
    sessions: Sessions = {}
    try:
        with one_thread_each():
            for number, feed in enumerate(feeds, 1):
                for name, exact, other in side_by_side(model, plan, feed, sessions):
                    if name in accumulators:
                        accumulators[name].add(exact, other)
                progress(number, len(feeds))
    except UnknownOperatorError as error:
        return {}, f"tensors were not measured, as the simulation lacks {error}"
    return accumulators, ""


def _equalization(model: ir.Model, plan: Plan, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """By tensor, whether a scale per channel has been, or could be, folded into its neighbours; others cannot have one."""
    sites = {key: site for key, site in find_sites(model, shapes).items() if not site.insertion.readers}
    members = {key: {m.tensor for m in site.members} | {site.tensor} for key, site in sites.items()}
    applied: Collection[str] = {name for t in plan.transforms if isinstance(t, Equalizations) for name in t.equalizations}
    found: dict[str, str] = {}
    for key, tensors in members.items():
        for name in tensors:
            found[name] = "applied" if key in applied or found.get(name) == "applied" else "possible"
    return found


class _Assembly:
    """Puts together what is known of each tensor."""

    def __init__(
        self,
        plan: Plan,
        offers: Offers,
        seen: Mapping[str, TensorStats],
        shapes: Mapping[str, tuple[int, ...]],
        target: Target,
        tensor_sensitivity: Mapping[str, float],
        operator_sensitivity: Mapping[str, float],
        equalization: Mapping[str, str],
    ) -> None:
        self.plan, self.offers, self.seen, self.shapes = plan, offers, seen, shapes
        self.target, self.equalization = target, equalization
        self.tensor_sensitivity, self.operator_sensitivity = tensor_sensitivity, operator_sensitivity

    def tensor(self, value: ir.Value, found: Accumulator | None, places: Mapping[str, int]) -> TensorFigures:
        name, node = str(value.name), value.producer()
        planned, operator = self.plan.tensors.get(name), "" if node is None else str(node.name)
        op = self.plan.ops.get(operator)
        stats = self.seen[name]
        first = node is not None and value is next(o for o in node.outputs if is_float(o))
        floats, integers = self._costs(node) if node is not None and first else (None, None)
        reason = (op.reason if op is not None else "") or (planned.reason if planned is not None else "")
        return TensorFigures(
            name=name,
            operator=operator,
            op_type="Input" if node is None else node.op_type,
            segment=places.get(operator),
            kind="float" if planned is None else planned.kind,
            params=None if planned is None else planned.params,
            shape=tuple(stats.shape),
            low=stats.minimum,
            high=stats.maximum,
            local_db=None if found is None else found.local_db,
            accumulated_db=None if found is None else found.accumulated_db,
            clipped=None if found is None else found.clipped,
            sensitivity=self.tensor_sensitivity.get(name) if planned is not None and planned.kind in ("measured", "fixed") else None,
            runs="" if op is None else op.runs,
            float_cost=floats,
            integer_cost=integers,
            reason=reason,
            reads=() if node is None else tuple(dict.fromkeys(str(v.name) for _, v in data_inputs(node))),
            histogram=None if found is None else found.histogram,
            spread=None if found is None else found.spread,
            equalization=self.equalization.get(name, "impossible"),
        )

    def _costs(self, node: ir.Node) -> tuple[float, float | None]:
        entry, op = self.offers.get(str(node.name)), self.plan.ops.get(str(node.name))
        cost = entry.writing("codes" if op is None else op.writes)[1] if isinstance(entry, SupportedForm) else math.inf
        integers = cost if math.isfinite(cost) else None
        return operator_costs(node, self.shapes, self.target)[0], integers

    def _stored(self, node: ir.Node, op: OpPlan) -> dict[int, QuantParams]:
        """Of an operator's constants that are stored as integers, by input index."""
        if op.runs == "integer":
            return op.constants
        stored = {index: self.plan.stored.get(str(value.name)) for index, value in enumerate(node.inputs) if value is not None}
        return op.constants | {index: params for index, params in stored.items() if params is not None}

    def weights(self, node: ir.Node, places: Mapping[str, int], bins: int) -> list[TensorFigures]:
        """Constants of an operator that are stored as integers."""
        op = self.plan.ops.get(str(node.name))
        found = []
        for index, params in sorted(self._stored(node, op).items()) if op is not None else ():
            array = constant(node.inputs[index])
            if array is None or op is None or not array.size:
                continue
            exact = array.astype(np.float32)
            collected = Accumulator(params, float(exact.min()), float(exact.max()), bins)
            collected.add(exact, np.asarray(dequantize(weight_codes(op, index, exact, params), params)))
            found.append(
                TensorFigures(
                    name=str(node.inputs[index].name),  # type: ignore[union-attr]
                    operator=str(node.name),
                    op_type=node.op_type,
                    segment=places.get(str(node.name)),
                    kind="weight",
                    params=params,
                    shape=tuple(int(n) for n in array.shape),
                    low=float(exact.min()),
                    high=float(exact.max()),
                    local_db=collected.accumulated_db,  # of its codes, which need not be the nearest
                    accumulated_db=None,
                    clipped=collected.clipped,
                    sensitivity=self.operator_sensitivity.get(str(node.name)) if index == 1 else None,
                    runs=op.runs,
                    float_cost=None,
                    integer_cost=None,
                    reason="" if index in op.constants else f"{_IN_FLOAT}: {op.reason}",
                    reads=(),
                    histogram=collected.histogram,
                    spread=None,
                )
            )
        return found
