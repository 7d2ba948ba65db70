"""What each node of a model takes on an ARM64 core.

The runtime cannot be stopped between two nodes, so every node of the graph that it has optimised for the core is run as a
model of its own, on the tensors that it meets in the whole. What such a run takes without any node is taken off. The sum
misses what lies between nodes, mainly the allocation of memory, and knows nothing of outputs that the runtime writes over
inputs in place; the remainder says how much that makes.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from converter.graph.operator_sets import VIEWS
from runtime_tests.emulation import emulator
from runtime_tests.emulation.count import Count, counted, model_samples
from runtime_tests.emulation.emulator import Job, JobResult
from runtime_tests.emulation.environment import Environment, environment
from runtime_tests.emulation.guest import load_tensors, save_tensors
from tools.arm64.split import Piece, empty_model, pieces, showing_all

__all__ = ["Apart", "NodeCount", "PerOp", "TypeCount", "by_type", "count_per_op", "per_op_json", "print_per_op", "take_apart"]

_VIEWS = VIEWS | {"Identity"}
"""Within a model their output lies where their input does, and nothing is copied."""

_SHOWN = 15
"""Dearest nodes in the printed table; the JSON has all."""


@dataclass(frozen=True)
class NodeCount:
    """One node of the optimised graph.

    Attributes:
        name: as the runtime calls it.
        op_type: without the domain.
        result: type and shape of its first output.
        instructions: what it takes; None if it could not be run by itself.
        error: why not.
        reads: tensors, constants included.
        writes: tensors.
    """

    name: str
    op_type: str
    result: str
    instructions: int | None
    error: str | None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TypeCount:
    """All nodes of one type together; those that could not be run by themselves count as 0 instructions."""

    op_type: str
    nodes: int
    instructions: int


@dataclass(frozen=True)
class PerOp:
    """A model taken apart.

    Attributes:
        whole: one inference of the model.
        call: instructions of a run without any node.
        nodes: in the order in which they run.
    """

    whole: Count
    call: int
    nodes: tuple[NodeCount, ...]

    @property
    def remainder(self) -> float:
        """What the whole takes beyond its nodes and the call; negative if the nodes take more by themselves than together."""
        return self.whole.median - self.call - sum(node.instructions or 0 for node in self.nodes)


@dataclass(frozen=True, eq=False)
class Apart:
    """A model taken apart, as it ran.

    Attributes:
        whole: one inference of the model.
        call: a run without any node.
        bound_call: the same with memory bound, which the run of every node has in it.
        parts: nodes, in the order in which they run.
        alone: what came of the run of each.
    """

    whole: Count
    call: JobResult
    bound_call: JobResult
    parts: tuple[Piece, ...]
    alone: tuple[JobResult, ...]


def by_type(nodes: Iterable[NodeCount]) -> list[TypeCount]:
    """Sums by type, the dearest first."""
    groups: dict[str, list[int]] = defaultdict(list)
    for node in nodes:
        groups[node.op_type].append(node.instructions or 0)
    sums = [TypeCount(op_type, len(found), sum(found)) for op_type, found in groups.items()]
    return sorted(sums, key=lambda each: (-each.instructions, each.op_type))


def count_per_op(
    model: Path,
    core: str,
    *,
    inputs: Path | None = None,
    seed: int = 0,
    env: Environment | None = None,
    select: Callable[[Sequence[Piece]], Sequence[Piece]] = list,
) -> PerOp:
    """Count a whole model, then each of its nodes. Arguments and exceptions as of :func:`take_apart`."""
    found = take_apart(model, core, inputs=inputs, seed=seed, env=env, select=select)
    bound_call = found.bound_call.instructions[0]
    nodes = (_node(part, result, bound_call) for part, result in zip(found.parts, found.alone, strict=True))
    return PerOp(found.whole, found.call.instructions[0], tuple(nodes))


def take_apart(
    model: Path,
    core: str,
    *,
    inputs: Path | None = None,
    seed: int = 0,
    env: Environment | None = None,
    select: Callable[[Sequence[Piece]], Sequence[Piece]] = list,
    blocks: bool = False,
) -> Apart:
    """Run a whole model, then each of its nodes, on the first sample of the inputs.

    Other arguments and exceptions as of :func:`runtime_tests.emulation.count.count`. The emulated machine is started three times.

    Args:
        seed: of noise, if there are no inputs.
        select: chooses among the nodes those that are run alone.
    """
    env = env or environment()
    with tempfile.TemporaryDirectory(prefix="arm64-") as name:
        folder = Path(name)
        given = folder / "given.npz"
        save_tensors(given, {key: array[:1] for key, array in model_samples(model, inputs, 1, seed).items()})
        whole, optimised = _whole(Job(model, (given,), optimised=folder / "optimised.onnx", blocks=blocks), core, env)
        values = _values(optimised, given, folder, core, env)
        tensors = {key: array[0] for path in (given, values) for key, array in load_tensors(path).items()}
        parts = list(select(list(pieces(optimised, tensors))))
        call, bound_call, *alone = _alone(parts, (given, values), folder, core, env, blocks)
    return Apart(whole, call, bound_call, tuple(parts), tuple(alone))


def _whole(job: Job, core: str, env: Environment) -> tuple[Count, onnx.ModelProto]:
    """Count the whole model; the graph that the runtime made of it."""
    (result,), machine = emulator.emulate([job], core, env)
    found = counted(job, result, machine)
    return found, onnx.load(str(job.optimised))


def _values(optimised: onnx.ModelProto, given: Path, folder: Path, core: str, env: Environment) -> Path:
    """Run the optimised graph once more, and keep every tensor."""
    job = Job(folder / "showing.onnx", (given,), outputs=folder / "values.npz", as_is=True)
    onnx.save(showing_all(optimised), job.model)
    (result,), machine = emulator.emulate([job], core, env)
    counted(job, result, machine)
    return folder / "values.npz"


def _alone(parts: Sequence[Piece], inputs: tuple[Path, ...], folder: Path, core: str, env: Environment, blocks: bool) -> list[JobResult]:
    """What a call takes without nodes; then the same with memory bound, and with memory bound what each node takes together with it."""
    empty, nothing = folder / "empty.onnx", folder / "nothing.npz"
    onnx.save(empty_model(), empty)
    save_tensors(nothing, {"x": np.zeros((1, 1), np.float32)})
    jobs = [Job(empty, (nothing,), blocks=blocks), Job(empty, (nothing,), bound=True, as_is=True, blocks=blocks)]
    for place, part in enumerate(parts):
        file = folder / f"{place}.onnx"
        onnx.save(part.model, file)
        jobs.append(Job(file, inputs, bound=True, as_is=True, view=part.op_type in _VIEWS, blocks=blocks))
    results, machine = emulator.emulate(jobs, core, env)
    for job, result in zip(jobs[:2], results[:2], strict=True):
        counted(job, result, machine)  # nodes may fail by themselves, runs of nothing may not
    return results


def _node(part: Piece, result: JobResult, bound_call: int) -> NodeCount:
    taken = result.instructions[0] - bound_call if result.error is None else None
    (node,) = part.model.graph.node
    return NodeCount(part.name, part.op_type, part.result, taken, result.error, tuple(node.input), tuple(node.output))


def per_op_json(found: PerOp) -> str:
    """Everything as JSON."""
    content = {
        "machine": dataclasses.asdict(found.whole.machine),
        "model": str(found.whole.model),
        "sha256": found.whole.digest,
        "instructions": found.whole.median,
        "call": found.call,
        "remainder": found.remainder,
        "types": [dataclasses.asdict(each) for each in by_type(found.nodes)],
        "nodes": [dataclasses.asdict(each) for each in found.nodes],
    }
    return json.dumps(content, indent=2) + "\n"


def print_per_op(console: Console, found: PerOp) -> None:
    """Two tables: by type with all that makes up the whole, and the dearest nodes."""
    console.print(f"{found.whole.model}: {found.whole.machine}", markup=False)
    whole = found.whole.median
    table = _table("type", "nodes", "M instructions", "share")
    for each in by_type(found.nodes):
        table.add_row(each.op_type, str(each.nodes), f"{each.instructions / 1e6:.3f}", f"{each.instructions / whole:.1%}")
    table.add_section()
    for name, amount in (("call of the runtime", found.call), ("remainder", found.remainder), ("whole model", whole)):
        table.add_row(name, "", f"{amount / 1e6:.3f}", f"{amount / whole:.1%}")
    console.print(table)
    dearest = sorted(found.nodes, key=lambda node: -(node.instructions or 0))[:_SHOWN]
    table = _table("dearest nodes", "type", "result", "M instructions", "share")
    for node in dearest:
        amount = node.instructions or 0
        table.add_row(escape(node.name), node.op_type, escape(node.result), f"{amount / 1e6:.3f}", f"{amount / whole:.1%}")
    console.print(table)
    for node in found.nodes:
        if node.error is not None:
            console.print(f"not measured: {node.op_type} {node.name}: {node.error.splitlines()[0]}", markup=False)


def _table(*headings: str) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in ("nodes", "M instructions", "share") else "left")
    return table
