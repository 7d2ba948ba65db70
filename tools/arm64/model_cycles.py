"""Cycles of an inference, as a whole and for each node of the graph that the runtime optimised for the core."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime_tests.emulation.count import Count, count
from runtime_tests.emulation.emulator import JobResult
from runtime_tests.emulation.environment import Environment
from tools.arm64.block_cycles import Costs, Cycles, block_costs, cycles_of
from tools.arm64.llvm import check_modelled, llvm_version
from tools.arm64.per_op import take_apart
from tools.arm64.split import Piece

__all__ = ["Amount", "ModelCycles", "NodeCycles", "check_cycles", "cycles_by_type", "cycles_per_op", "model_cycles"]


@dataclass(frozen=True)
class Amount:
    """Instructions, and the cycles that they take."""

    instructions: int
    cycles: float

    @property
    def per_cycle(self) -> float | None:
        """Instructions of a cycle (IPC); None where there are none to speak of."""
        return self.instructions / self.cycles if self.cycles > 0 and self.instructions > 0 else None


@dataclass(frozen=True)
class NodeCycles:
    """One node of the optimised graph.

    Attributes:
        name: as the runtime calls it.
        op_type: without the domain.
        result: type and shape of its first output.
        amount: what it takes beyond a run without any node; None if it could not be run by itself.
        error: why not.
        reads: tensors, constants included.
        writes: tensors.
    """

    name: str
    op_type: str
    result: str
    amount: Amount | None
    error: str | None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelCycles:
    """One inference of a model.

    Attributes:
        count: instructions, and what ran them.
        llvm: version of what judged the blocks.
        whole: what the inference takes.
        call: what a run without any node takes; None if the model was not taken apart.
        nodes: in the order in which they run; empty if the model was not taken apart.
    """

    count: Count
    llvm: str
    whole: Cycles
    call: Amount | None = None
    nodes: tuple[NodeCycles, ...] = ()

    @property
    def amount(self) -> Amount:
        """Of the whole."""
        return Amount(self.whole.instructions, self.whole.cycles)

    @property
    def remainder(self) -> Amount:
        """What the whole takes beyond its nodes and the call; negative if the nodes take more by themselves than together."""
        inside = [node.amount for node in self.nodes if node.amount is not None] + ([self.call] if self.call is not None else [])
        return _less(self.amount, _total(inside))


def cycles_by_type(nodes: Iterable[NodeCycles]) -> dict[str, tuple[int, Amount]]:
    """Number of nodes and sum by type, the type with the most cycles first; nodes that could not be run count as nothing."""
    groups: dict[str, list[Amount]] = defaultdict(list)
    for node in nodes:
        groups[node.op_type].append(node.amount or Amount(0, 0.0))
    sums = {op_type: (len(amounts), _total(amounts)) for op_type, amounts in groups.items()}
    return dict(sorted(sums.items(), key=lambda item: (-item[1][1].cycles, item[0])))


def model_cycles(models: Sequence[Path], core: str, env: Environment, *, inputs: Path | None = None, seed: int = 0) -> list[ModelCycles]:
    """Cycles of one inference of each model, on the first sample of the inputs.

    Other arguments and exceptions as of :func:`runtime_tests.emulation.count.count`.

    Args:
        core: one of :data:`tools.arm64.llvm.CORE_MODELS`.

    Raises:
        UsageError: there is no model of the core, or LLVM is not there.
    """
    version = check_cycles(core)
    counts = count(models, core, inputs=inputs, seed=seed, env=env, blocks=True)
    costs = block_costs([each.blocks[0] for each in counts], core, env.costs)
    return [ModelCycles(each, version, cycles_of(each.blocks[0], costs)) for each in counts]


def cycles_per_op(
    model: Path,
    core: str,
    env: Environment,
    *,
    inputs: Path | None = None,
    seed: int = 0,
    select: Callable[[Sequence[Piece]], Sequence[Piece]] = list,
) -> ModelCycles:
    """Cycles of a whole model, then of each of its nodes. Other arguments and exceptions as of :func:`model_cycles`.

    Args:
        select: chooses among the nodes those that are run alone.
    """
    version = check_cycles(core)
    found = take_apart(model, core, inputs=inputs, seed=seed, env=env, select=select, blocks=True)
    ran = [found.call, found.bound_call, *(result for result in found.alone if result.error is None)]
    costs = block_costs([found.whole.blocks[0], *(result.blocks[0] for result in ran)], core, env.costs)
    bound_call = _amount(found.bound_call, costs)
    nodes = (_node(part, result, bound_call, costs) for part, result in zip(found.parts, found.alone, strict=True))
    return ModelCycles(found.whole, version, cycles_of(found.whole.blocks[0], costs), _amount(found.call, costs), tuple(nodes))


def check_cycles(core: str) -> str:
    """Make sure that cycles can be estimated, before anything is emulated, which takes a while; LLVM's version.

    Raises:
        UsageError: there is no model of the core, or LLVM is not there.
    """
    check_modelled(core)
    return llvm_version()


def _node(part: Piece, result: JobResult, bound_call: Amount, costs: Costs) -> NodeCycles:
    taken = _less(_amount(result, costs), bound_call) if result.error is None else None
    (node,) = part.model.graph.node
    return NodeCycles(part.name, part.op_type, part.result, taken, result.error, tuple(node.input), tuple(node.output))


def _amount(result: JobResult, costs: Costs) -> Amount:
    found = cycles_of(result.blocks[0], costs)
    return Amount(found.instructions, found.cycles)


def _total(amounts: Iterable[Amount]) -> Amount:
    found = list(amounts)
    return Amount(sum(each.instructions for each in found), sum(each.cycles for each in found))


def _less(amount: Amount, part: Amount) -> Amount:
    return Amount(amount.instructions - part.instructions, amount.cycles - part.cycles)
