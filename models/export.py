"""Export a reference network to ONNX: ``python -m models.export NAME OUT.onnx [--checkpoint FILE]``.

Nothing is simplified, fused or renamed: the file is what PyTorch's exporter makes of the network, so that it stands
for the exports people have. Only two entries are added to the model's metadata:

* ``bridgequant.preprocess``: how pictures become inputs, as a SPEC of ``converter.calibration.preprocess``;
* ``bridgequant.classes``: a JSON list of class names, where they are known.

The same command gives the same bytes. Before anything is written, ONNX Runtime's answers are compared with PyTorch's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn
from torch.jit._trace import TracerWarning

from converter.calibration.preprocess import parse_preprocess
from converter.cli.command import Parser, exit_code, print_line
from converter.errors import ModelError, UsageError, VerificationError
from converter.load.files import write_files
from converter.load.metadata import CLASSES, PREPROCESS
from converter.verify.row_matching import match_rows
from models.checkpoint import CheckpointError, Weights, load_weights, read_weights
from models.registry import create, default_preprocess, default_size

__all__ = ["INPUT", "OUTPUT", "TOLERANCE", "Network", "build", "export_model", "main", "relative_error"]

INPUT, OUTPUT = "image", "logits"
TOLERANCE = 1e-4
_TRAINED_HERE = "symmetric;resize=stretch"  # what models.train feeds
_DEFAULT_CLASSES = 1000
# Below 14 the classic exporter cannot write attention.
_OPSETS = {"torchscript": range(14, 21), "dynamo": range(18, 24)}
_DEFAULT_OPSET = {"torchscript": 17, "dynamo": 18}


@dataclass(frozen=True, eq=False)
class Network:
    """A network that is ready to be exported.

    Attributes:
        module: in evaluation mode.
        size: height and width of its images, in pixels.
        preprocess: SPEC of what it expects.
        class_names: in the order of the scores; empty if unknown.
        outputs: names of what the module gives, a tensor or a tuple of tensors.
        row_axes: of outputs whose rows the network selects, by name: rounding may exchange rows of nearly the same score.
    """

    module: nn.Module
    size: int
    preprocess: str
    class_names: tuple[str, ...] = ()
    outputs: tuple[str, ...] = (OUTPUT,)
    row_axes: Mapping[str, int] = field(default_factory=dict)


def build(
    name: str,
    *,
    checkpoint: Path | None = None,
    size: int | None = None,
    classes: int | None = None,
    preprocess: str | None = None,
    seed: int = 0,
) -> Network:
    """Build a network with the weights of a checkpoint, or with the random ones it is initialised with.

    Args:
        name: one of ``models.registry.names()``.
        checkpoint: weights; a file of ``models.train`` also says size, classes and preprocessing.
        size: height and width in pixels; by default the checkpoint's, else the one the network was published for.
        classes: by default the checkpoint's, else 1000.
        preprocess: SPEC; by default what models.train feeds for a file of its own, else the one the network was published with.

    Raises:
        UnknownModelError: no network of that name.
        UsageError: a number or the SPEC makes no sense, or the checkpoint does not exist.
        CheckpointError: the checkpoint does not fit.
        ModelError: the network cannot be built for this size.
    """
    weights = read_weights(checkpoint) if checkpoint else Weights({})
    about = weights.metadata
    if checkpoint and about.get("model", name) != name:
        raise CheckpointError(f"the weights are those of {about['model']}, not of {name}", where=str(checkpoint), hint="give that name")
    size = size or int(about.get("size", default_size(name)))
    classes = classes or int(about.get("classes", _DEFAULT_CLASSES))
    if size < 32 or classes < 1 or seed < 0:
        given = f"size {size}, classes {classes}, seed {seed}"
        raise UsageError("at least 32 pixels, 1 class and seed 0 are needed", where=given, hint="change --size, --classes or --seed")
    preprocess = preprocess or (_TRAINED_HERE if "model" in about else default_preprocess(name))
    parse_preprocess(preprocess)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = create(name, classes=classes, size=size).eval()
        if checkpoint:
            load_weights(module, weights, checkpoint)
    except RuntimeError as error:
        what = f"{name} does not run at {size} pixels: {_first_line(error)}"
        raise ModelError(what, where="--size", hint="try a multiple of 32") from error
    return Network(module, size, preprocess, tuple(json.loads(about.get("class_names", "[]"))))


def export_model(
    network: Network,
    *,
    exporter: str = "torchscript",
    opset: int | None = None,
    dynamic_batch: bool = False,
    images: torch.Tensor | None = None,
    tolerance: float | None = None,
) -> bytes:
    """Turn a network into the bytes of an ONNX file and check them against PyTorch.

    Args:
        network: from :func:`build`.
        exporter: ``torchscript`` (the classic one) or ``dynamo``.
        opset: by default 17 for torchscript, 18 for dynamo, the lowest that dynamo writes.
        dynamic_batch: leave the batch dimension open instead of fixing it to 1.
        images: to compare on, float32 [3 or more, 3, H, W]; by default normally distributed numbers.
        tolerance: largest difference, relative to the largest value of an output; by default :data:`TOLERANCE`.

    Raises:
        UsageError: the exporter does not write this opset.
        ModelError: the exporter refuses the network.
        VerificationError: ONNX Runtime computes something else.
    """
    opset = opset or _DEFAULT_OPSET[exporter]
    known = _OPSETS[exporter]
    if opset not in known:
        what = f"opset {opset} is not among those the {exporter} exporter is used with here"
        raise UsageError(what, where="--opset", hint=f"give one from {known[0]} to {known[-1]}")
    example = torch.zeros(2 if dynamic_batch and exporter == "dynamo" else 1, 3, network.size, network.size)
    try:
        export = _export_torchscript if exporter == "torchscript" else _export_dynamo
        model = export(network, example, opset, dynamic_batch)
    except RuntimeError as error:  # of the exporter, or of a network that does not run at this size
        what = f"the exporter refuses the network: {_first_line(error)}"
        where = f"opset {opset}, {exporter}, {network.size} pixels"
        raise ModelError(what, where=where, hint="try another --opset, --exporter or --size") from error
    onnx.helper.set_model_props(model, _metadata(network))
    content: bytes = model.SerializeToString(deterministic=True)
    if images is None:
        images = torch.randn(3, 3, network.size, network.size, generator=torch.Generator().manual_seed(0))
    _verify(content, network, images, (1, 3) if dynamic_batch else (1,), TOLERANCE if tolerance is None else tolerance)
    return content


def _export_torchscript(network: Network, example: torch.Tensor, opset: int, dynamic_batch: bool) -> onnx.ModelProto:
    axes = {name: {0: "batch"} for name in (INPUT, *network.outputs)} if dynamic_batch else None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that the exporter is an old one is known
        # Sizes that the trace has turned into constants are right for every input of the declared shape;
        # _verify would find one that is not.
        warnings.simplefilter("ignore", TracerWarning)
        path = Path(folder) / "model.onnx"
        names: dict[str, Any] = {"input_names": [INPUT], "output_names": list(network.outputs)}
        torch.onnx.export(network.module, (example,), path, dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
        return onnx.load(path)


def _export_dynamo(network: Network, example: torch.Tensor, opset: int, dynamic_batch: bool) -> onnx.ModelProto:
    shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": list(network.outputs)}
    program = torch.onnx.export(network.module, (example,), dynamo=True, verbose=False, opset_version=opset, dynamic_shapes=shapes, **names)
    if program is None:
        raise ModelError("the exporter returned nothing", where="dynamo", hint="use --exporter torchscript")
    model: onnx.ModelProto = program.model_proto
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]  # stack traces with the paths of this machine
    return model


def _metadata(network: Network) -> dict[str, str]:
    properties = {PREPROCESS: network.preprocess}
    if network.class_names:
        properties[CLASSES] = json.dumps(network.class_names)
    return properties


def _verify(content: bytes, network: Network, images: torch.Tensor, batches: tuple[int, ...], tolerance: float) -> None:
    """Compare ONNX Runtime with PyTorch on the first images, in each batch size."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for batch in batches:
        image = images[:batch]
        with torch.no_grad():
            answer = network.module(image)
        tensors = answer if isinstance(answer, tuple) else (answer,)
        expected = {name: tensor.numpy() for name, tensor in zip(network.outputs, tensors, strict=True)}
        actual = dict(zip(expected, session.run(list(expected), {INPUT: image.numpy()}), strict=True))
        error = max(relative_error(p.got, p.wanted) for p in match_rows(expected, actual, network.row_axes).values())
        if not error < tolerance:
            what = f"ONNX Runtime's output differs from PyTorch's by {error:.1e} of its largest value, the limit is {tolerance:.0e}"
            raise VerificationError(what, where=f"batch of {batch}; nothing was written", hint="try another --opset or --exporter")


def relative_error(actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Largest absolute difference over the largest absolute value; infinite if the shapes differ or numbers are not finite."""
    if actual.shape != expected.shape or not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return float("inf")
    return float(np.abs(actual - expected).max() / max(float(np.abs(expected).max()), np.finfo(np.float32).tiny))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = Parser(prog=prog, description="Export a reference network to ONNX.")
    parser.add_argument("name", metavar="NAME", help="network, as in models.registry")
    parser.add_argument("out", metavar="OUT.onnx", type=Path)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights (default: random ones)")
    parser.add_argument("--size", type=int, metavar="PX", help="height and width (default: the checkpoint's or the network's own)")
    parser.add_argument("--classes", type=int, metavar="N", help="outputs (default: the checkpoint's, else 1000)")
    parser.add_argument("--preprocess", metavar="SPEC", help="of the pictures (default: the checkpoint's or the network's own)")
    parser.add_argument("--opset", type=int, metavar="N", help="default: 17, with dynamo 18")
    parser.add_argument("--exporter", choices=sorted(_OPSETS), default="torchscript")
    parser.add_argument("--dynamic-batch", action="store_true", help="leave the batch dimension open")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of random weights (default 0)")
    options = parser.parse_args(arguments)
    if not options.out.parent.is_dir():
        raise UsageError("the folder of the output does not exist", where=str(options.out), hint="create it first")
    return options


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m models.export") -> int:
    """Run the command line; returns the exit code."""

    def run() -> None:
        options = _parse(arguments, prog)
        given = {name: getattr(options, name) for name in ("checkpoint", "size", "classes", "preprocess", "seed")}
        network = build(options.name, **given)
        content = export_model(network, exporter=options.exporter, opset=options.opset, dynamic_batch=options.dynamic_batch)
        write_files({options.out: content})
        weights = options.checkpoint.name if options.checkpoint else f"random weights, seed {options.seed}"
        print_line(f"{options.out}: {options.name}, {weights}, {network.size} pixels, {network.preprocess}, {len(content) / 1e6:.1f} MB")

    return exit_code(run)


if __name__ == "__main__":
    raise SystemExit(main())
