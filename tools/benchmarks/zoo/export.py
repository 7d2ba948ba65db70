"""One network of the zoo as an ONNX file: ``python -m tools.benchmarks.zoo.export NAME EXPORTER BATCH OUT.onnx``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from converter.calibration.preprocess import apply_preprocess, parse_preprocess
from converter.calibration.synthetic_images import natural_images
from converter.cli.command import Parser, exit_code
from converter.errors import UsageError
from converter.load.files import write_files
from models.export import Network, export_model
from tools.benchmarks.zoo.lively import enliven
from tools.benchmarks.zoo.networks import NETWORKS, Entry, How

__all__ = ["BATCHES", "export_entry", "main"]

BATCHES = {False: "1", True: "open"}
_PREPROCESS = "imagenet;resize=stretch"
_IMAGES, _SEED = 16, 0


def export_entry(entry: Entry, how: How) -> bytes:
    """Build a network with lively weights from a fixed seed, and export it.

    Raises:
        ConverterError: a library is missing, the exporter refuses, or ONNX Runtime computes something else than PyTorch.
    """
    torch.set_num_threads(1)
    torch.manual_seed(_SEED)
    module = entry.make()
    images = _images(entry.size)
    enliven(module, images)
    network = Network(module, entry.size, _PREPROCESS, outputs=entry.outputs)
    return export_model(network, exporter=how.exporter, dynamic_batch=how.open_batch, images=images)


def _images(size: int) -> torch.Tensor:
    """Built-in pictures as the networks get them, float32 [N, 3, size, size]."""
    preprocess = parse_preprocess(_PREPROCESS)
    rows = [apply_preprocess(Image.fromarray(p), size, size, 3, preprocess) for p in natural_images(_IMAGES, size, size, _SEED)]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def run() -> None:
        parser = Parser(prog="python -m tools.benchmarks.zoo.export", description="Export a network of the zoo.")
        parser.add_argument("name", metavar="NAME")
        parser.add_argument("exporter", choices=["torchscript", "dynamo"])
        parser.add_argument("batch", choices=BATCHES.values())
        parser.add_argument("out", type=Path, metavar="OUT.onnx")
        flags = parser.parse_args(arguments)
        entry = next((e for e in NETWORKS if e.name == flags.name), None)
        if entry is None:
            raise UsageError(f"there is no network '{flags.name}' in the zoo", where="NAME", hint="see tools/benchmarks/zoo/networks.py")
        write_files({flags.out: export_entry(entry, How(flags.exporter, flags.batch == BATCHES[True]))})

    return exit_code(run)


if __name__ == "__main__":
    raise SystemExit(main())
