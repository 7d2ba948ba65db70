"""Float and int8 files of a network in ONNX Runtime and OpenVINO: latency in turns, in one process, on one thread each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from converter.errors import ModelError, UsageError
from converter.load.model import load
from converter.options import Options
from converter.runtime.latency import LatencyRatio, ratio_of_times, times_in_turns
from converter.runtime.session import Feed, open_session, run_session
from tools.benchmarks.instructions.models import Workshop, float_model, our_model, static_model
from tools.calibration import calibration_feeds
from tools.importers.engines import openvino_model, openvino_settings
from tools.importers.matrix import complaint

__all__ = ["FLOAT", "Made", "files", "latencies", "openers", "sample"]

FLOAT = "float"
"""The row that all others are compared with."""

Run = Callable[[], object]


@dataclass(frozen=True)
class Made:
    """A file that is to run somewhere, or why there is none.

    Attributes:
        path: of the file; None if there is none.
        openvino: in OpenVINO instead of ONNX Runtime.
        remark: why there is none.
    """

    path: Path | None
    openvino: bool
    remark: str = ""


def files(shop: Workshop, network: str, target: str, method: str | None = None) -> dict[str, Made]:
    """Make what is compared, by the name of its row, float first.

    Args:
        shop: where files go, and what calibrates.
        network: one of :data:`tools.benchmarks.instructions.models.NETWORKS`, or the path of a float model.
        target: ``x86`` or ``x86-vnni``; without VNNI, other tools are asked for weights of 7 bits.
        method: of this converter's file; None for the default one.

    Raises:
        ModelError: there is no float model, or no conversion of it.
    """
    static = "ort-u8s8" if target == "x86-vnni" else "ort-u8s8-reduced"
    floats, ours = float_model(shop, network), our_model(shop, network, target, method).path
    rows = {
        FLOAT: Made(floats, False),
        f"--target {target}": Made(ours, False),
        "quantize_static, U8S8": _other(shop, network, static, openvino=False),
    }
    if find_spec("openvino") is None:
        return {**rows, "OpenVINO": Made(None, True, "not installed")}
    rows |= {"OpenVINO, float": Made(floats, True), f"OpenVINO, --target {target}": Made(ours, True)}
    if find_spec("nncf") is None:
        return {**rows, "OpenVINO, NNCF": Made(None, True, "NNCF is not installed")}
    return {**rows, "OpenVINO, NNCF": _other(shop, network, "nncf", openvino=True)}


def _other(shop: Workshop, network: str, tool: str, *, openvino: bool) -> Made:
    try:
        return Made(static_model(shop, network, tool), openvino)
    except ModelError as error:
        return Made(None, openvino, error.what)


def sample(shop: Workshop, network: str) -> Feed:
    """One input of the network: the first that calibrates."""
    return calibration_feeds(load(float_model(shop, network)), shop.calib, count=1, seed=Options.seed)[0]


def openers(rows: Mapping[str, Made], feed: Feed) -> tuple[dict[str, Run], dict[str, str]]:
    """Open every file.

    Returns:
        what runs each once, by row, and why the others do not run.
    """
    runs: dict[str, Run] = {}
    remarks = {name: made.remark for name, made in rows.items() if made.path is None}
    for name, made in rows.items():
        if made.path is None:
            continue
        try:
            runs[name] = _opened(made.path, made.openvino, feed)
        except (ModelError, RuntimeError) as error:
            if name == FLOAT:
                raise
            remarks[name] = f"does not load: {complaint(str(error))[:100]}"
    return runs, remarks


def _opened(path: Path, openvino: bool, feed: Feed) -> Run:
    run: Run
    if openvino:  # in float32: on processors with bfloat16 it would compute in that
        run = partial(openvino_model(path, openvino_settings(INFERENCE_PRECISION_HINT="f32")), feed)
    else:
        session = open_session(path, threads=1, spinning=True)
        run = partial(run_session, session, feed)
    run()
    return run


def latencies(runs: Mapping[str, Run], *, seconds: float, repeats: int) -> dict[str, tuple[LatencyRatio, ...]]:
    """Float time over the time of each, all in turns, measured several times.

    Args:
        runs: by row, :data:`FLOAT` among them.
        seconds: that one measurement takes, about.
        repeats: how many there are.
    """
    if FLOAT not in runs:
        raise UsageError("there is no float model to compare with", where="--networks", hint="name one that can be exported")
    found: dict[str, list[LatencyRatio]] = {name: [] for name in runs if name != FLOAT}
    for _ in range(repeats):
        times = dict(zip(runs, times_in_turns(list(runs.values()), seconds=seconds), strict=True))
        for name, ratios in found.items():
            ratios.append(ratio_of_times(times[FLOAT], times[name]))
    return {name: tuple(ratios) for name, ratios in found.items()}
