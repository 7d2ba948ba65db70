"""Fit a target's costs to a device: ``python -m tools.device_bench.costs TARGET --ssh HOST --out FILE.toml``.

The probes of ``tools.profile.target`` run on the device, in float and in integer in turns, with the runtime's own profile of each node; the
quickest of several visits counts. ``--target FILE.toml`` of the converter takes the result.
"""

from __future__ import annotations

import gzip
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

from converter.cli.command import Parser, exit_code
from converter.errors import ModelError
from converter.load.files import write_files
from converter.runtime.session import Feed, first_line
from converter.targets import DEFAULT_TARGET, find_target
from converter.targets.target import Target
from converter.targets.target_file import target_text
from runtime_tests.emulation.guest import save_tensors
from tools.device_bench.bundle import Python, add_file, add_json, add_modules, describe, run_module, send
from tools.device_bench.flags import add_device_flags, python_of, tell, transport_of
from tools.device_bench.state import core_mask, fastest_cores, read_state
from tools.device_bench.transport import Transport, remote_folder
from tools.profile.probes import BRANCH_LETTERS, Probe, probes
from tools.profile.samples import Timed
from tools.profile.target import (
    PICOSECOND_FLOOR,
    RUNS,
    VISITS,
    Measured,
    check_target_file,
    fitted,
    measured_forms,
    print_fits,
    probe_forms,
)
from tools.profile.web import profiled_nodes, quickest
from tools.web.overhead import Overhead

__all__ = ["main", "measure_costs"]

_RESULT = "result.json.gz"

Forms = Sequence[tuple[Sequence[onnx.ModelProto], Feed]]
"""For each probe the models that run in turns, and their inputs."""


def measure_costs(
    device: Transport,
    target: Target,
    given: Sequence[Probe],
    *,
    python: Python,
    runs: int,
    visits: int,
    say: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Run probes on a device, on its fastest core.

    Args:
        target: whose integer forms are measured.
        given: the probes.
        python: words that start the device's Python.
        runs: of each model at each visit, after one that warms up.
        visits: how often all probes are gone through.
        say: called with what is done next.

    Raises:
        UsageError: the device cannot be reached.
        ConverterError: a command fails there.
        ModelError: a probe does not run there.
    """
    forms, offered = probe_forms(target, given)
    began = time.time()
    with remote_folder(device) as folder, tempfile.TemporaryDirectory(prefix="device-") as name:
        scratch = Path(name)
        say("sending the runner")
        send(device, folder, scratch, add_modules)
        about = describe(device, python, folder)
        say("sending the probes")
        settings = dict(target.session_settings.get(about["machine"], {}))
        send(device, folder, scratch, lambda archive: _add(archive, forms, folder, settings, runs, scratch))
        state = read_state(device)
        mask = core_mask(fastest_cores(state.cores, 1))
        seen: list[list[list[Timed]]] = []
        for visit in range(visits):
            say(f"visit {visit + 1} of {visits}")
            told = run_module(device, python, folder, "tools.device_bench.profiler", f"{folder}/job.json", f"{folder}/{_RESULT}", mask=mask)
            if told["error"] is not None:
                raise ModelError(f"a probe does not run on the device: {first_line(told['error'])}", where=device.name)
            device.pull(f"{folder}/{_RESULT}", scratch / _RESULT)
            now = _timed(json.loads(gzip.decompress((scratch / _RESULT).read_bytes())), forms)
            seen = [[quickest(*pair) for pair in zip(*each, strict=True)] for each in zip(seen or now, now, strict=True)]
    ran = f"{state.name or about['machine']}, onnxruntime {about['onnxruntime']}, one thread"
    ran += f", {visits} visits of {runs} runs in {time.time() - began:.0f} s"
    return measured_forms(given, seen, offered, ran, PICOSECOND_FLOOR, about["onnxruntime"])


def _add(archive: tarfile.TarFile, forms: Forms, folder: str, settings: dict[str, str], runs: int, scratch: Path) -> None:
    groups = []
    for place, (protos, feed) in enumerate(forms):
        names = [f"probe{place}_{form}.onnx" for form in range(len(protos))]
        for name, proto in zip(names, protos, strict=True):
            add_file(archive, name, proto.SerializeToString())
        save_tensors(scratch / "inputs.npz", feed)
        archive.add(scratch / "inputs.npz", f"inputs{place}.npz")
        paths = [f"{folder}/{name}" for name in names]
        groups.append({"models": paths, "inputs": f"{folder}/inputs{place}.npz", "settings": settings})
    add_json(archive, "job.json", {"runs": runs + 1, "groups": groups})


def _timed(events: Sequence[Sequence[Sequence[dict[str, Any]]]], forms: Forms) -> list[list[list[Timed]]]:
    """Nodes of each probe and form; the tensors of a probe's inputs begin with its name."""
    return [
        [profiled_nodes(profile, next(iter(feed))[:BRANCH_LETTERS], Overhead()) for profile in group]
        for group, (_, feed) in zip(events, forms, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, fit, print and write; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.device_bench.costs", description="Fit a target's costs to a device, and write a target file.")
    add = parser.add_argument
    add("target", nargs="?", default=DEFAULT_TARGET, help="whose types and settings are kept: a name, or FILE.toml (default arm64)")
    add_device_flags(parser)
    add("--out", type=Path, metavar="FILE.toml", help="write the target; without it, it is only shown")
    add("--name", help="of the target that is written (default: the same)")
    add("--runs", type=int, default=RUNS, metavar="N", help=f"at each visit (default {RUNS})")
    add("--visits", type=int, default=VISITS, metavar="N", help=f"how often each operator is visited (default {VISITS})")
    options = parser.parse_args(arguments)
    parser.check_least(options, runs=1, visits=1)
    base = find_target(options.target)
    check_target_file(options.target, options.out, options.name)
    device, python = transport_of(options), python_of(options)
    measured = measure_costs(device, base, probes(), python=python, runs=options.runs, visits=options.visits, say=tell)
    target, fits = fitted(base, measured)
    target = replace(target, name=options.name or base.name)
    print_fits(Console(width=None if sys.stdout.isatty() else 140, highlight=False), target, fits)
    if options.out is not None:
        write_files({options.out.absolute(): target_text(target).encode()})


if __name__ == "__main__":
    raise SystemExit(main())
