"""Parameters and multiply-accumulates of a network: ``python -m models.macs [NAME ...] [--size PX]``.

Two counts are kept apart, for one image:

* *products*: convolutions, linear layers and matrix products, attention included; one multiply-accumulate for each
  product that is summed. This is what most papers and tools report.
* *elementwise*: one for each element that a BatchNorm, LayerNorm or GroupNorm scales, and two for each element of a
  dynamic ReLU, which multiplies its input by two slopes.

Biases, residual sums, softmax, pooling and the other activations count nothing. The Mobile-Former paper does not say
what its figures include. Products alone fall 2 to 9 % short of them, most at the smallest network; with the
elementwise ones all seven are met within 2 %, so the sum is what is compared with the paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from converter.cli.command import Parser, exit_code, print_line
from models.mobile_former import VARIANTS
from models.mobile_former_blocks import DynamicReLU
from models.registry import create, default_size

__all__ = ["PUBLISHED", "Counts", "count", "main", "measure", "table"]

PUBLISHED: dict[str, tuple[float, float]] = {
    "mobile_former_26m": (3.2, 26.0),
    "mobile_former_52m": (3.5, 52.0),
    "mobile_former_96m": (4.6, 96.0),
    "mobile_former_151m": (7.6, 151.0),
    "mobile_former_214m": (9.4, 214.0),
    "mobile_former_294m": (11.4, 294.0),
    "mobile_former_508m": (14.0, 508.0),
}
"""Millions of parameters and of multiply-accumulates at 224 pixels that the Mobile-Former paper states."""

_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Counts:
    """Size and work of a network.

    Attributes:
        parameters: trainable numbers.
        products: multiply-accumulates of convolutions, linear layers and matrix products, for one image.
        elementwise: multiplications of normalisations and dynamic ReLUs, for one image.
    """

    parameters: int
    products: int
    elementwise: int

    @property
    def total(self) -> int:
        """All multiply-accumulates for one image."""
        return self.products + self.elementwise


def count(model: nn.Module, size: int) -> Counts:
    """Count by running the network once on one image of ``size`` x ``size`` pixels; its mode is kept."""
    elementwise = 0

    def add(times: int) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            nonlocal elementwise
            elementwise += times * output.numel()

        return hook

    hooks = [m.register_forward_hook(add(1)) for m in model.modules() if isinstance(m, _NORMALISATIONS)]
    hooks += [m.register_forward_hook(add(2)) for m in model.modules() if isinstance(m, DynamicReLU)]
    training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    try:
        # The fused attention of the CPU is not in the counter's table; its plain form is two counted matrix products.
        # Gradients stay on because the counter's module tracker refuses parameters that are passed on without them.
        with sdpa_kernel(SDPBackend.MATH), counter:
            model(torch.zeros(1, 3, size, size))
    finally:
        model.train(training)
        for handle in hooks:
            handle.remove()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Counts(parameters, counter.get_total_flops() // 2, elementwise)


def measure(names: list[str], size: int | None = None) -> list[tuple[str, int, Counts]]:
    """Count networks with 1000 classes, at their usual size unless one is given; name, pixels and counts of each."""
    sizes = [size or default_size(name) for name in names]
    return [(name, pixels, count(create(name, size=pixels), pixels)) for name, pixels in zip(names, sizes, strict=True)]


def table(rows: list[tuple[str, int, Counts]]) -> str:
    """Write what :func:`measure` found as a Markdown table, beside the published figures where they apply."""
    lines = [
        "| network | pixels | parameters, M | paper | products, M | elementwise, M | total, M | paper | total vs. paper |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, pixels, counts in rows:
        cells = [f"{number / 1e6:.2f}" for number in (counts.parameters, counts.products, counts.elementwise, counts.total)]
        parameters, macs, deviation = "", "", ""
        if name in PUBLISHED and pixels == default_size(name):
            parameters, macs = f"{PUBLISHED[name][0]:.1f}", f"{PUBLISHED[name][1]:.0f}"
            deviation = f"{100 * (counts.total / 1e6 / PUBLISHED[name][1] - 1):+.1f} %"
        lines.append(f"| {name} | {pixels} | {cells[0]} | {parameters} | {cells[1]} | {cells[2]} | {cells[3]} | {macs} | {deviation} |")
    return "\n".join(lines)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m models.macs", description="Count parameters and multiply-accumulates.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks (default: every Mobile-Former)")
    parser.add_argument("--size", type=int, metavar="PX", help="height and width of the image (default: the network's own)")
    options = parser.parse_args(arguments)
    options.names = options.names or list(VARIANTS)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def run() -> None:
        options = _parse(arguments)
        print_line(table(measure(options.names, options.size)))

    return exit_code(run)


if __name__ == "__main__":
    raise SystemExit(main())
