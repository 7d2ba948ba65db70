"""Integer coverage: which kernels ONNX Runtime really runs, read from its own profile of the optimised graph."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from converter.forms.form import SupportedForm, UnsupportedForm
from converter.plan.records import Plan
from converter.runtime.session import Feed, open_session, run_session

__all__ = ["INTEGER_PRODUCTS", "FloatOp", "IntegerCoverage", "integer_products", "measure_integer_coverage", "profile"]

INTEGER_PRODUCTS = frozenset(["QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "ConvInteger", "MatMulInteger"])
_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class FloatOp:
    """An operator that ran in float: its name in the canonical graph, multiply-accumulates, and why."""

    name: str
    op_type: str
    macs: int
    reason: str


@dataclass(frozen=True)
class IntegerCoverage:
    """What the runtime ran.

    Attributes:
        kernels: how many nodes of each kernel ran, most frequent first.
        integer_macs: multiply-accumulates of Conv, Gemm and MatMul in integer kernels.
        total_macs: in all kernels.
        float_ops: products that stayed float, largest first, then other operators without an integer form.
    """

    kernels: dict[str, int]
    integer_macs: int
    total_macs: int
    float_ops: tuple[FloatOp, ...]

    @property
    def coverage(self) -> float:
        """Share of multiply-accumulates in integer, 0 to 1."""
        return self.integer_macs / self.total_macs if self.total_macs else 0.0


def measure_integer_coverage(
    model: onnx.ModelProto,
    plan: Plan,
    offers: Mapping[str, SupportedForm | UnsupportedForm],
    feed: Feed,
    settings: Mapping[str, str],
    folder: Path,
) -> IntegerCoverage:
    """Profile one inference and attribute each product kernel to the operator it came from.

    Args:
        plan: for the reasons.
        offers: for the multiply-accumulates of each operator at the calibrated shape.
        feed: one sample of that shape.
        settings: session settings under which the target's kernels run here.
        folder: where the runtime may write its profile and its optimised graph.
    """
    macs = {name: entry.macs for name, entry in offers.items() if entry.macs}
    in_integer, kernels = integer_products(model, macs, feed, settings, folder)
    floats = [FloatOp(n, plan.ops[n].op_type, macs[n], _reason(plan, n)) for n in macs if n not in in_integer and n in plan.ops]
    others = [FloatOp(n, op.op_type, 0, op.reason) for n, op in plan.ops.items() if op.runs != "integer" and n not in macs]
    return IntegerCoverage(
        kernels,
        sum(macs[n] for n in in_integer),
        sum(macs.values()),
        (*sorted(floats, key=lambda f: (-f.macs, f.name)), *others),
    )


def integer_products(
    model: onnx.ModelProto, names: Collection[str], feed: Feed, settings: Mapping[str, str], folder: Path
) -> tuple[frozenset[str], dict[str, int]]:
    """Profile one inference, and find those of the named operators that ran in integer kernels.

    Args:
        model: emitted model; its nodes have names, each its own.
        names: of Conv, Gemm and MatMul nodes in it.
        folder: where the runtime may write its profile and its optimised graph.

    Returns:
        the names of those in integer; how many nodes of each kernel ran, most frequent first.
    """
    optimised = folder / "optimised.onnx"
    session = open_session(model, threads=1, settings=settings, optimised_path=optimised, profile_prefix=folder / "profile")
    ran = [(event["args"]["op_name"], event["name"].removesuffix(_SUFFIX)) for event in profile(session, feed)]
    source_nodes = _source_nodes(model, onnx.load(optimised, load_external_data=False), names)
    found = frozenset(source_nodes[kernel] for op_type, kernel in ran if op_type in INTEGER_PRODUCTS and kernel in source_nodes)
    return found, dict(sorted(Counter(op_type for op_type, _ in ran).items(), key=lambda item: (-item[1], item[0])))


def profile(session: Any, feed: Feed) -> list[dict[str, Any]]:
    """Run a session that was opened with a profile, and give the runtime's record of each kernel that ran, in order."""
    run_session(session, feed)
    events = json.loads(Path(session.end_profiling()).read_text())
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX)]


def _source_nodes(model: onnx.ModelProto, optimised: onnx.ModelProto, names: Collection[str]) -> dict[str, str]:
    """The operator that each kernel came from, by the kernel's name.

    The runtime keeps the names of most nodes; of a convolution it may keep no more than the name of its weights.
    """
    constants = {i.name for i in model.graph.initializer}
    stored = {o: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants for o in n.output}
    owners = {stored[value]: node.name for node in model.graph.node if node.name in names for value in node.input if value in stored}
    found = {}
    for node in optimised.graph.node:
        owner = node.name if node.name in names else next((owners[value] for value in node.input if value in owners), None)
        if owner is not None:
            found[node.name] = owner
    return found


def _reason(plan: Plan, name: str) -> str:
    op = plan.ops[name]
    return op.reason if op.runs != "integer" else "planned in integer, but the runtime did not fuse it"
