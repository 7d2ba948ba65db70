"""Whether a file fits this machine and its runtime: what it is made for, what runs in integer, and whether it computes what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto

from converter.calibration.input_shapes import calibration_shapes
from converter.calibration.preprocess import stated_preprocess
from converter.calibration.samples import load_samples
from converter.doctor.machine import X86, Machine
from converter.errors import ModelError
from converter.load.metadata import TARGET, VERSION
from converter.load.model import Source, load_as_it_is
from converter.runtime.session import Feed, open_session, run_session
from converter.targets import TARGETS, Target
from converter.verify.coverage_by_profile import coverage_of
from converter.verify.parity import LEAST_PARITY_DB
from converter.verify.quality import sqnr

__all__ = ["FileFit", "Needs", "fit_of", "machine_targets", "needs_of"]

_STANDARD = ("", "ai.onnx")
_CODES = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8", TensorProto.INT16: "int16", TensorProto.UINT16: "uint16"}


@dataclass(frozen=True)
class Needs:
    """What a file asks for.

    Attributes:
        opset: of the standard domain.
        ir_version: of the file format.
        domains: other domains whose operators it has.
        activations: types of the codes that its QuantizeLinear write, most frequent first.
        weight_codes: largest magnitude among the int8 codes of its constants; 0 if it has none.
        target: machine class it was made for; empty if it does not say.
        version: of the converter; empty if it is no file of ours.
    """

    opset: int
    ir_version: int
    domains: tuple[str, ...]
    activations: tuple[str, ...]
    weight_codes: int
    target: str
    version: str


@dataclass(frozen=True)
class FileFit:
    """What came of looking at a file here.

    Attributes:
        name: of the file.
        needs: what it asks for.
        sample: what it was run on.
        integer: share of multiply-accumulates in integer kernels, 0 to 1; None if it does not run.
        parity_db: as the runtime runs it, against the same file with no operator fused; None without an output of numbers.
        faults: why it does not fit, each a sentence with what to do; it fits if there are none.
        remarks: what to know although it fits.
    """

    name: str
    needs: Needs
    sample: str
    integer: float | None
    parity_db: float | None
    faults: tuple[str, ...]
    remarks: tuple[str, ...]


def machine_targets(machine: Machine, saturating: bool) -> tuple[str, ...]:
    """Built-in machine classes that this machine belongs to, the best first.

    Args:
        machine: architecture and instruction sets.
        saturating: see :func:`converter.doctor.kernels.saturates`.
    """
    if machine.architecture in X86:
        return ("x86",) if saturating else ("x86-vnni", "x86")
    sets = machine.instruction_sets
    if machine.architecture not in TARGETS["arm64"].architectures:
        return ()
    if sets is None or "dotprod" not in sets:
        return ("arm64",) if sets is None else ("arm64-v8.0",)
    finer = [name for name, one in (("arm64-a55", machine.little), ("arm64-sme", "sme" in sets), ("arm64-i8mm", "i8mm" in sets)) if one]
    return (*finer, "arm64")


def needs_of(source: Source) -> Needs:
    """Read what a file asks for from its graph and its metadata."""
    graph = source.model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    written = Counter(
        _CODES.get(constants[node.input[2]].data_type, "other") if len(node.input) > 2 and node.input[2] in constants else "uint8"
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    )
    read = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"} & set(constants)
    largest = [_largest_code(constants[name]) for name in read if constants[name].data_type == TensorProto.INT8]
    return Needs(
        source.opset,
        source.model.ir_version,
        tuple(sorted({node.domain for node in graph.node} - set(_STANDARD))),
        tuple(name for name, _ in written.most_common()),
        max(largest, default=0),
        source.metadata.get(TARGET, ""),
        source.metadata.get(VERSION, ""),
    )


def _largest_code(tensor: TensorProto) -> int:
    codes = np.frombuffer(tensor.raw_data, np.int8) if tensor.raw_data else np.asarray(tensor.int32_data, np.int16)
    return int(np.abs(codes.astype(np.int16)).max(initial=0))


def fit_of(path: Path, machine: Machine, saturating: bool, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> FileFit:
    """Run a file on a synthetic sample, under the settings that a user's session has by default.

    Args:
        path: any model, quantized or float.
        machine: this one.
        saturating: see :func:`converter.doctor.kernels.saturates`.
        input_shapes: sizes of open inputs.

    Raises:
        ModelError: the file cannot be read.
        UsageError: a size of an open input makes no sense.
    """
    source = load_as_it_is(path)
    needs = needs_of(source)
    try:
        open_session(source.model, threads=1)
        shapes, _ = calibration_shapes(source, input_shapes or {}, None, 1)
        samples = load_samples(None, shapes, count=1, preprocess=stated_preprocess(source.metadata), seed=0)
        feed = samples.calibration[0]
        coverage = coverage_of(source.model, feed, {})
        parity = _parity(source, feed)
    except ModelError as error:
        hint = "install a newer onnxruntime, or see whether the file is complete"
        return FileFit(path.name, needs, "", None, None, (f"{error.what}: {hint}",), ())
    faults, remarks = _judged(needs, machine, saturating, parity)
    if coverage.in_float and needs.activations:
        remarks.append(f"{len(coverage.in_float)} products run in float, the largest is {coverage.in_float[0].name}")
    share = coverage.integer_macs / coverage.total_macs if coverage.total_macs else None
    return FileFit(path.name, needs, samples.description.partition(" (")[0], share, parity, tuple(faults), tuple(remarks))


def _parity(source: Source, feed: Feed) -> float | None:
    """SQNR of the output that agrees least between the runtime's fused and unfused computation; None without outputs of numbers."""
    fused, plain = (run_session(open_session(source.model, threads=1, optimise=optimise), feed) for optimise in (True, False))
    names = [name for name, value in plain.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size]
    found = [sqnr(plain[name], fused[name]) if fused[name].shape == plain[name].shape else 0.0 for name in names]
    return min(found, default=None)


def _judged(needs: Needs, machine: Machine, saturating: bool, parity: float | None) -> tuple[list[str], list[str]]:
    faults, remarks = [], []
    fitting = machine_targets(machine, saturating)
    advice = f"convert the float model with --target {fitting[0]}" if fitting else "see docs/targets.md"
    target = TARGETS.get(needs.target)
    if not needs.activations:
        remarks.append("it quantizes nothing: it runs in float, on any machine")
    if needs.target and target is None:
        remarks.append(f"it is for '{needs.target}', a machine class of its maker's own")
    if target is not None and needs.activations and machine.architecture not in target.architectures:
        faults.append(f"it is for {_class_of(target)}, and this machine is {machine.architecture}: {advice}")
    elif target is not None and fitting and target.name not in fitting:
        remarks.append(f"it is for {_class_of(target)}; one for {fitting[0]} may be faster here")
    if saturating and needs.activations and needs.weight_codes > _largest_that_fits(TARGETS["x86"]) and needs.target != "x86":
        faults.append(f"its weights have 8 bits, and products of them saturate here: {advice}")
    if parity is not None and parity < LEAST_PARITY_DB:
        faults.append(f"this runtime does not compute what the file says ({parity:.1f} dB against the same file unfused): {advice}")
    return faults, remarks


def _class_of(target: Target) -> str:
    return f"{target.name} ({target.description.split(', ')[0]})"


def _largest_that_fits(target: Target) -> int:
    return int(2 ** (target.dense_weight_bits(8) - 1))
