"""Small float graphs for the tests of planning, emission and simulation, and what becomes of them."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from converter.calibration.observer import CalibrationStatistics, collect_statistics
from converter.emit.builder import emit
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.methods.problem import Problem
from converter.partition.assign import place
from converter.partition.bit_widths import CONTAINER_BITS, tensor_bits
from converter.partition.integer_forms import offer
from converter.partition.policy import FULL, parse_placement
from converter.partition.requantize_copies import add_requantize_copies
from converter.partition.write_assignment import write_assignment
from converter.plan.records import Plan
from converter.planning.registry import METHODS
from converter.quantization.bit_widths import BitWidths
from converter.runtime.session import Feed, open_session, run_session
from converter.sensitivity.output_loss import OutputLoss
from converter.targets import TARGETS, Target
from converter.verify.fusion_hazards import check_emitted
from converter.verify.quality import sqnr
from converter.verify.simulation import simulate

FLOAT = TensorProto.FLOAT


def losses_of(model: ir.Model, kind: Literal["scores", "values", "either"] = "scores") -> dict[str, OutputLoss]:
    """The same loss for every output."""
    return {str(value.name): OutputLoss(kind) for value in model.graph.outputs}


TARGET_NAMES = ("arm64", "x86")


class Sketch:
    """Appends nodes to a graph; every method returns the name of a tensor."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, *shape: int | str) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, FLOAT, shape))
        return name

    def constant(self, array: Any, dtype: type = np.float32) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant(self.generator.standard_normal(shape) * scale)

    def add(self, op_type: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        return self.split(op_type, *inputs, name=name, outputs=1, **attributes)[0]

    def split(self, op_type: str, *inputs: str, outputs: int, name: str = "", **attributes: Any) -> list[str]:
        name = name or f"{op_type.lower()}_{len(self.nodes)}"
        made = [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), made, name=name, **attributes))
        return made

    def conv(self, x: str, channels: int, *, size: int = 3, group: int = 1, outputs: int = 0, bias: bool = True, **rest: Any) -> str:
        weight = self.normal(outputs or channels, channels // group, size, size, scale=(channels // group * size * size) ** -0.5)
        operands = [weight, self.normal(outputs or channels, scale=0.2)] if bias else [weight]
        return self.add("Conv", x, *operands, group=group, pads=[size // 2] * 4, **rest)

    def silu(self, x: str) -> str:
        return self.add("Mul", x, self.add("Sigmoid", x))

    def model(self, *outputs: str, dtype: int = FLOAT) -> ir.Model:
        stored = {i.name: i.dims for i in self.initializers}
        infos = [helper.make_tensor_value_info(o, dtype, stored.get(o)) for o in outputs]
        graph = helper.make_graph(self.nodes, "sketch", self.inputs, infos, self.initializers)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        onnx.checker.check_model(proto)
        model: ir.Model = ir.from_proto(proto)
        return model


def feeds_for(model: ir.Model, count: int = 4, seed: int = 1) -> list[dict[str, npt.NDArray[Any]]]:
    """Standard normal samples."""
    generator = np.random.default_rng(seed)
    shapes = {str(v.name): tuple(d if isinstance(d, int) else 1 for d in (v.shape or ())) for v in model.graph.inputs}
    return [{name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(count)]


@dataclass(frozen=True)
class Planned:
    """A plan and what it was made from."""

    model: ir.Model
    seen: CalibrationStatistics
    offers: dict[str, SupportedForm | UnsupportedForm]
    plan: Plan
    target: Target


def plan_for(
    model: ir.Model,
    target: str = "arm64",
    *,
    integer: Collection[str] | None = None,
    cheapest: bool = False,
    method: str = "minmax",
    bits: tuple[int, int] = (8, 8),
    excluded: Collection[str] = (),
    feeds: Sequence[Feed] = (),
    placement: str = "latency",
    full: bool = False,
) -> Planned:
    """Plan a model: everything that is offered in integer, or the cheapest placement, or the operators named, or in full.

    With fewer than 8 bits for activations, the model given is forked.
    """
    # networks so small save next to nothing, and shall be converted all the same
    chosen, label = replace(TARGETS[target], margin=0.0, quantize_node=0.0, dequantize_node=0.0), BitWidths(*bits)
    if bits[1] < CONTAINER_BITS:
        add_requantize_copies(model, excluded)
    seen = collect_statistics(model, feeds or feeds_for(model), threads=1)
    offers = offer(model, seen, chosen, activation_bits=bits[1], weight_bits=bits[0], excluded=excluded)
    constants = {(n, i): c for n, o in offers.items() if isinstance(o, SupportedForm) for i, c in o.constants.items()}
    widths = tensor_bits(model, offers, bits[1])
    choice = METHODS[method].choose(Problem(seen.tensors, constants, widths, chosen.signed_activations))
    if cheapest or full:
        best = FULL if full else parse_placement(placement)
        return Planned(model, seen, offers, place(model, offers, choice, seen, chosen, method=method, bits=label, placement=best), chosen)
    names = frozenset(n for n, o in offers.items() if isinstance(o, SupportedForm)) if integer is None else frozenset(integer)
    return Planned(model, seen, offers, write_assignment(model, offers, choice, names, Plan(method, label, target, {}, {})), chosen)


def emitted(planned: Planned, metadata: dict[str, str] | None = None) -> onnx.ModelProto:
    """Emit and check."""
    result = emit(planned.model, planned.plan, metadata or {})
    check_emitted(result)
    proto: onnx.ModelProto = ir.to_proto(result)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def settings_for(target: Target) -> dict[str, str]:
    """Session settings under which this machine runs the target's kernels."""
    return dict(target.session_settings.get(platform.machine(), {}))


def kernels_of(proto: onnx.ModelProto, target: Target, folder: Path) -> Counter[str]:
    """How many nodes of each operator the runtime's optimised graph holds."""
    path = folder / "optimised.onnx"
    open_session(proto, threads=1, settings=settings_for(target), optimised_path=path)
    return Counter(n.op_type for n in onnx.load(path).graph.node)


def parity(planned: Planned, proto: onnx.ModelProto, *, settings: dict[str, str] | None = None, samples: int = 4) -> float:
    """SQNR between the emitted model in ONNX Runtime and the simulation of its plan, pooled over outputs and samples."""
    session = open_session(proto, threads=1, settings=settings_for(planned.target) if settings is None else settings)
    pairs = [
        (simulated[name].reshape(-1), value.reshape(-1))
        for feed in feeds_for(planned.model, samples, seed=99)
        for simulated in [simulate(planned.model, planned.plan, feed)]
        for name, value in run_session(session, feed).items()
    ]
    return sqnr(np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))


def shapes_of(model: ir.Model) -> dict[str, tuple[int, ...]]:
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    return {str(value.name): tuple(map(int, value.shape or ())) for value in values}  # type: ignore[arg-type]


def classifier() -> ir.Model:
    """Pictures ``x`` [1, 3, 16, 16] to five scores."""
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 3, 16, 16), 3, outputs=16, name="first")
    x = sketch.add("Relu", sketch.conv(sketch.silu(x), 16, name="second"))
    x = sketch.add("Flatten", sketch.add("GlobalAveragePool", x))
    return sketch.model(sketch.add("Gemm", x, sketch.normal(16, 5), sketch.normal(5), name="head"))


MACS = {"first": 16 * 256 * 27, "second": 16 * 256 * 144, "head": 16 * 5}
"""Multiply-accumulates of :func:`classifier`, by hand."""
