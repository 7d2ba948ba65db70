"""What 4-bit weights cost beside int8 and float: ``python -m tools.profile.nbits [--core CORE]``.

Every linear layer is measured in float, in the integer form that the converter writes, and with weights that are stored as int4 in
blocks, which ONNX Runtime joins with the layer to a ``MatMulNBits`` (of a Gemm from 1.25 on). Costs are counted instructions of an
emulated ARM64 core if ``--core`` is given, times by this machine's clock otherwise.

A ``MatMulNBits`` reads and writes floats. So between float operators it has to beat the float layer, and the integer layer with a Q in
front. Between integer operators it has to beat the integer layer alone by more than the DQ and the Q which it needs there.

``--store MODEL.onnx --out OUT.onnx`` writes a model of which all linear layers in float have such weights, to be scored and counted whole.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.version_converter
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from converter.cli.command import Parser, exit_code
from converter.doctor.kernels import saturates
from converter.doctor.machine import this_machine
from converter.errors import UsageError
from converter.graph.operator_sets import BARRIER
from converter.load.files import check_outputs, write_files
from converter.targets import Target, find_target
from runtime_tests.emulation.cores import CORES, check_core
from runtime_tests.emulation.environment import RUNTIME_CHOICE, Environment, environment
from runtime_tests.emulation.inputs import read_model
from tools.profile.arm64 import counted_nodes
from tools.profile.clock import PICOSECONDS, clocked_nodes, prepared
from tools.profile.probes import Probe, feeds, integers, probe_model, seen_in
from tools.profile.samples import CONVERSIONS, Timed, conversion_samples

__all__ = ["FORMS", "SIZES", "FourBit", "Row", "Size", "clocked", "counted", "fused", "in_blocks", "main"]

Size = tuple[int, int, int]
"""Rows, inner and outer size of a linear layer."""

SIZES: tuple[Size, ...] = (
    (1024, 64, 64), (1024, 64, 192), (256, 80, 240), (256, 160, 80), (256, 256, 256), (256, 512, 512), (196, 64, 256), (196, 256, 64),
    (64, 64, 64), (64, 96, 288), (64, 192, 96), (64, 512, 512), (49, 100, 400), (49, 448, 1792), (49, 1792, 448), (9, 768, 192),
    (4, 96, 96), (1, 192, 512), (1, 320, 1000), (1, 1280, 1000),
)  # fmt: skip
"""Of attention and its MLPs in hybrid networks, and of classifiers."""

_OPSET, _IR = 21, 10
"""The first with weights of 4 bits."""

_LARGEST = 7
"""Of the codes, which are symmetric."""

_LEVEL_SETTING = "session.qdq_matmulnbits_accuracy_level"
_FUSED = "MatMulNBits"
_ARM = "arm64"
_THOUSAND = 1e3
_RUNS, _VISITS = 100, 5
_BLOCK = 32


@dataclass(frozen=True)
class FourBit:
    """How a layer with 4-bit weights is computed.

    Attributes:
        block: weights of one output that share a scale.
        level: the runtime's accuracy level. 4, which it takes unless told otherwise, rounds the input to 8 bits, block by block, and
            multiplies integers; 0 multiplies floats.
    """

    block: int
    level: int


FORMS = tuple(FourBit(block, level) for level in (4, 0) for block in (32, 64, 128))


@dataclass(frozen=True)
class Row:
    """One layer, its costs and the bytes of its constants.

    Attributes:
        size: of the layer.
        in_float: cost in float.
        in_integer: cost in integer, without Q or DQ.
        quantize: cost of a Q of the layer's input.
        four_bits: cost with 4-bit weights, by form.
        stored: bytes in float, in integer, and with 4-bit weights in blocks of the first form.
    """

    size: Size
    in_float: float
    in_integer: float
    quantize: float
    four_bits: Mapping[FourBit, float]
    stored: tuple[int, int, int]

    @property
    def cheapest(self) -> float:
        """Cost of the cheapest form with 4-bit weights."""
        return min(self.four_bits.values())


def in_blocks(model: onnx.ModelProto, block: int) -> onnx.ModelProto:
    """A model whose Gemm and MatMul nodes have their weights as int4, rounded to the nearest; what else there is stays.

    Args:
        model: with float32 weights; those that are computed, or stored in int8, stay as they are. If there are Q in it, these layers get
            barriers.
        block: how many weights of an output share a scale; the last ones may be fewer.
    """
    result = _copy(model) if _opset(model) >= _OPSET else onnx.version_converter.convert_version(model, _OPSET)
    result.ir_version = max(result.ir_version, _IR)
    graph = result.graph
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2}
    apart = any(node.op_type == "QuantizeLinear" for node in graph.node)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        layer = [node]
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in constants:
            weights = constants.pop(node.input[1])
            codes, scales = _rounded(_upright(node, numpy_helper.to_array(weights)), block)
            reads, read = [f"{weights.name}_codes", f"{weights.name}_scales"], f"{weights.name}_read"
            graph.initializer.remove(weights)
            graph.initializer.append(helper.make_tensor(reads[0], TensorProto.INT4, codes.shape, codes.ravel()))
            graph.initializer.append(numpy_helper.from_array(scales, reads[1]))
            nodes.append(helper.make_node("DequantizeLinear", reads, [read], name=read, axis=0, block_size=block))
            node.input[1] = read
            layer = _kept_apart(node) if apart else layer
        nodes += layer
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _kept_apart(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The layer between two barriers: the runtime joins it with its weights neither behind a DQ nor in front of a Q."""
    x, y = node.input[0], node.output[0]
    node.input[0], node.output[0] = f"{y}_entered", f"{y}_left"
    return [helper.make_node(BARRIER, [x], [node.input[0]]), node, helper.make_node(BARRIER, [node.output[0]], [y])]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _opset(model: onnx.ModelProto) -> int:
    return next(int(each.version) for each in model.opset_import if each.domain == "")


def _upright(node: onnx.NodeProto, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Weights (inner x outer): the runtime joins no others. The node is told that they are."""
    turned = next((each for each in node.attribute if each.name == "transB" and each.i), None)
    if turned is None:
        return weights
    turned.i = 0
    return np.ascontiguousarray(weights.T)


def _rounded(weights: npt.NDArray[np.float32], block: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Codes of a matrix (inner x outer; -7 to 7) and their scales (blocks x outer; float32)."""
    inner, outer = weights.shape
    count = -(-inner // block)
    padded = np.zeros((count * block, outer), np.float32)
    padded[:inner] = weights
    scales = np.abs(padded).reshape(count, block, outer).max(axis=1) / np.float32(_LARGEST)
    each = np.repeat(np.where(scales > 0, scales, 1), block, axis=0)[:inner]
    return np.rint(weights / each).astype(np.int8), scales


def fused(model: onnx.ModelProto, level: int) -> onnx.ModelProto:
    """What this machine's runtime makes of layers with 4-bit weights: nodes that carry the accuracy level with them.

    Raises:
        UsageError: it does not join them with their weights.
    """
    optimised, _, nodes = prepared(model, {}, {_LEVEL_SETTING: str(level)})
    if any(node.op_type != _FUSED for node in nodes):
        what = f"ONNX Runtime {onnxruntime.__version__} makes no {_FUSED} of a layer with 4-bit weights"
        raise UsageError(what, where="onnxruntime", hint="install 1.25 or newer")
    return optimised


def counted(sizes: Sequence[Size], core: str, env: Environment | None = None) -> tuple[list[Row], str]:
    """Instructions of every layer and form on an emulated core; and what ran them, in a line."""
    model = _model(sizes)
    runs = [counted_nodes(proto, core, env) for proto in _protos(model, find_target(_ARM))]
    nodes = [found for found, _, _ in runs]
    return _rows(sizes, nodes, _stored(sizes, find_target(_ARM))), runs[0][2]


def clocked(sizes: Sequence[Size], *, runs: int, visits: int) -> tuple[list[Row], str]:
    """Picoseconds of every layer and form on this machine, all forms of a layer in turns; and what ran them, in a line."""
    target = _target_here()
    settings = target.session_settings.get(platform.machine(), {})
    models = [_model([size], place) for place, size in enumerate(sizes)]
    groups = [[prepared(proto, feeds(model), settings) for proto in _protos(model, target)] for model in models]
    found = clocked_nodes(groups, runs=runs, rounds=visits)
    nodes = [[node for layer in found for node in layer[form]] for form in range(len(FORMS) + 2)]
    processor = this_machine().processor or platform.machine()
    return _rows(sizes, nodes, _stored(sizes, target)), f"{processor}, onnxruntime {onnxruntime.__version__}, target {target.name}"


def _target_here() -> Target:
    arm = find_target(_ARM)
    if platform.machine() in arm.architectures:
        return arm
    return find_target("x86" if saturates() else "x86-vnni")


def _model(sizes: Sequence[Size], first: int = 0) -> ir.Model:
    layers = [Probe("Gemm", ((rows, inner),), ((inner, outer), (outer,))) for rows, inner, outer in sizes]
    return probe_model(layers, first=first)


def _protos(model: ir.Model, target: Target) -> list[onnx.ModelProto]:
    """The layers in float, in integer, and with 4-bit weights in every form."""
    in_float = ir.to_proto(model)
    in_integer, _ = integers(model, seen_in(model), target)
    return [in_float, in_integer, *(fused(in_blocks(in_float, form.block), form.level) for form in FORMS)]


def _stored(sizes: Sequence[Size], target: Target) -> list[tuple[int, int, int]]:
    """Bytes of the constants of each layer in float, in integer and with 4-bit weights."""
    found = []
    for size in sizes:
        model = _model([size])
        protos = (ir.to_proto(model), integers(model, seen_in(model), target)[0], in_blocks(ir.to_proto(model), FORMS[0].block))
        in_float, in_integer, four_bits = map(_bytes, protos)
        found.append((in_float, in_integer, four_bits))
    return found


def _bytes(model: onnx.ModelProto) -> int:
    constants = (value.const_value for value in ir.from_proto(model).graph.initializers.values())
    return sum(tensor.nbytes for tensor in constants if tensor is not None)


def _rows(sizes: Sequence[Size], nodes: Sequence[Sequence[Timed]], stored: Sequence[tuple[int, int, int]]) -> list[Row]:
    """From the nodes that ran of each of :func:`_protos`."""
    quantize = {sample.features["element"]: sample.cost for sample in conversion_samples(nodes[1]) if sample.kind == "QuantizeLinear"}
    rows = []
    for place, (size, sizes_stored) in enumerate(zip(sizes, stored, strict=True)):
        in_float, in_integer, *four_bits = (_layer_cost(each, f"p{place:04}") for each in nodes)
        by_form = dict(zip(FORMS, four_bits, strict=True))
        rows.append(Row(size, in_float, in_integer, quantize[float(size[0] * size[1])], by_form, sizes_stored))
    return rows


def _layer_cost(nodes: Sequence[Timed], branch: str) -> float:
    costs = [node.cost for node in nodes if node.branch == branch and node.op_type not in CONVERSIONS]
    assert costs and None not in costs, f"the layer {branch} was not measured"
    return sum(cost for cost in costs if cost is not None)


def _print(console: Console, rows: Sequence[Row], ran: str, unit: str, each: float) -> None:
    console.print(f"{ran}; {unit}; 4-bit: accuracy level / block", markup=False)
    table = Table()
    table.add_column("rows x inner x outer")
    forms = [f"4-bit {form.level}/{form.block}" for form in FORMS]
    for heading in ("float", "int8", "Q + int8", *forms, "bytes float", "int8", "4-bit"):
        table.add_column(heading, justify="right")
    for row in rows:
        costs = (row.in_float, row.in_integer, row.quantize + row.in_integer, *row.four_bits.values())
        table.add_row(" x ".join(map(str, row.size)), *(f"{cost / each:.1f}" for cost in costs), *(f"{size:,}" for size in row.stored))
    console.print(table)
    wins = (
        ("float", sum(row.cheapest < row.in_float for row in rows)),
        ("int8 with a Q in front", sum(row.cheapest < row.in_integer + row.quantize for row in rows)),
        ("int8", sum(row.cheapest < row.in_integer for row in rows)),
    )
    for other, count in wins:
        console.print(f"the cheapest form with 4-bit weights is cheaper than {other} in {count} of {len(rows)} layers", markup=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.profile.nbits", description="What 4-bit weights cost beside int8 and float.")
    add = parser.add_argument
    add("--sizes", nargs="+", type=_size, default=SIZES, metavar="ROWSxINNERxOUTER", help=f"of layers (default {len(SIZES)} of networks)")
    add("--core", help=f"emulate: {' | '.join(CORES)} (default: the clock of this machine)")
    add("--runtime", default="newest", metavar="VERSION", help=f"emulated ONNX Runtime: {RUNTIME_CHOICE} (default newest)")
    add("--root", type=Path, metavar="DIR", help="folder of the emulator's set-up")
    add("--runs", type=int, default=_RUNS, metavar="N", help=f"by the clock: runs at each visit (default {_RUNS})")
    add("--visits", type=int, default=_VISITS, metavar="N", help=f"by the clock: how often each layer is visited (default {_VISITS})")
    add("--store", type=Path, metavar="MODEL.onnx", help="measure nothing: store the float weights of this model's linear layers in 4 bits")
    add("--out", type=Path, metavar="OUT.onnx", help="the file that --store writes")
    add(
        "--block",
        type=int,
        default=_BLOCK,
        choices=(16, 32, 64, 128, 256),
        help=f"of --store (default {_BLOCK})",
    )
    flags = parser.parse_args(arguments)
    if (flags.store is None) != (flags.out is None):
        parser.error("--store and --out need each other")
    if flags.store is not None:
        check_outputs({"--out": flags.out}, {"--store": flags.store})
        write_files({flags.out.absolute(): in_blocks(read_model(flags.store), flags.block).SerializeToString()})
        return
    if min(flags.runs, flags.visits) < 1:
        raise UsageError("nothing would be measured", where="--runs, --visits", hint="give 1 or more")
    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False)
    if flags.core is None:
        rows, ran = clocked(flags.sizes, runs=flags.runs, visits=flags.visits)
        _print(console, rows, f"{ran}, one thread", "microseconds", PICOSECONDS)
    else:
        rows, ran = counted(flags.sizes, check_core(flags.core), environment(flags.root, flags.runtime))
        _print(console, rows, ran, "thousand instructions", _THOUSAND)


def _size(text: str) -> Size:
    sizes = [int(word) for word in text.split("x") if word.isdecimal()]
    if len(sizes) != 3 or min(sizes) < 1 or text.count("x") != 2:
        raise argparse.ArgumentTypeError(f"'{text}' is no size such as 64x96x288")
    return sizes[0], sizes[1], sizes[2]


if __name__ == "__main__":
    raise SystemExit(main())
