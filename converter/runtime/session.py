"""How this project opens ONNX Runtime sessions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from converter.errors import ModelError
from converter.graph.weight_files import WeightFolder, exceeds_file, folder_of, offload, with_relative_places
from converter.quantization.output_codes import output_grids, with_numbers

__all__ = ["Feed", "first_line", "open_session", "run_model", "run_session"]

Feed = Mapping[str, npt.NDArray[Any]]
"""Model inputs by name, one sample."""

_state = onnxruntime.capi.onnxruntime_pybind11_state
_RUNTIME_ERRORS = (
    _state.EPFail,
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NoSuchFile,
    _state.NotImplemented,
    _state.RuntimeException,
)

_SPINNING = "session.intra_op.allow_spinning"
"""Threads that wait for the next operator by spinning take a processor from whoever else could use it, and slow each other down
where several processes share a few. Where time is measured it stays as it is on a device."""

_WEIGHT_FOLDER = "session.model_external_initializers_file_folder_path"
_OPTIMISED_WEIGHTS = "session.optimized_model_external_initializers_file_name"
_NO_COPIES = "session.disable_prepacking"

_PLACES = (r"Name:'([^']+)'", r"node with name '([^']+)'", r"Node \(([^)]+)\)", r'In Node, \("([^"]+)"')
"""How the runtime's messages name the node they speak of."""

_CODE = r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .+? failed:)?"
_SOURCE_LINE = r"/\S+\.(?:h|cc|cpp):\d+ [^()]*\([^()]*\)(?: const)?\s*"


def open_session(
    model: onnx.ModelProto | Path,
    *,
    threads: int = 0,
    optimise: bool = True,
    settings: Mapping[str, str] | None = None,
    optimised_path: Path | None = None,
    profile_prefix: Path | None = None,
    spinning: bool = False,
    without: Sequence[str] = (),
) -> Any:
    """Open a CPU session.

    Args:
        model: a model in memory, or a file (needed when it has external data).
        threads: intra-op threads; 0 leaves the choice to the runtime.
        optimise: all of the runtime's graph optimisations, or none.
        optimised_path: where the runtime writes its optimised graph.
        profile_prefix: file prefix of a profile, which ``end_profiling`` completes.
        spinning: threads spin while they wait, as they do by default on a device: faster where nothing else runs.
        without: names of graph optimisations that are left out.

    Raises:
        ModelError: the runtime does not accept the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    for key, value in {_SPINNING: str(int(spinning)), **(settings or {})}.items():
        options.add_session_config_entry(key, value)
    if optimised_path is not None:
        options.optimized_model_filepath = str(optimised_path)
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    content, folder, weights = _content(model)
    if folder is not None:
        options.add_session_config_entry(_WEIGHT_FOLDER, str(folder))
        if optimised_path is not None and optimised_path.suffix == ".onnx":
            options.add_session_config_entry(_OPTIMISED_WEIGHTS, f"{optimised_path.name}.data")
        if not spinning:  # where time is measured, weights are copied into the order that is fastest
            options.add_session_config_entry(_NO_COPIES, "1")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without))
    except _RUNTIME_ERRORS as error:
        raise ModelError(f"ONNX Runtime does not load the model: {first_line(error)}", where=_place(error)) from error
    finally:
        del weights  # the session has mapped the files


def _content(model: onnx.ModelProto | Path) -> tuple[str | bytes, Path | None, WeightFolder | None]:
    """What the runtime opens, the folder of its large weights, and the owner of that folder if it is for this session alone."""
    if isinstance(model, Path):
        return str(model), None, None
    folder, own = folder_of(model), None
    if exceeds_file(model):
        if folder is None:
            own = WeightFolder()
            folder = own.path
        model = offload(model, folder)
    if folder is None:
        return model.SerializeToString(), None, None
    return with_relative_places(model).SerializeToString(), folder, own


def run_session(session: Any, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Run one sample; outputs by name: arrays, or lists of arrays where an output is a sequence.

    Outputs that a model gives as codes, as its metadata say, come as the numbers that they stand for.

    Raises:
        ModelError: the runtime fails on this input.
    """
    names = list(outputs) if outputs is not None else [o.name for o in session.get_outputs()]
    try:
        values = session.run(names, dict(feed))
    except _RUNTIME_ERRORS as error:
        raise ModelError(f"ONNX Runtime cannot run the model: {first_line(error)}", where=_place(error)) from error
    results: dict[str, Any] = {n: value if isinstance(value, list) else np.asarray(value) for n, value in zip(names, values, strict=True)}
    try:
        return with_numbers(results, output_grids(session.get_modelmeta().custom_metadata_map))
    except ValueError as error:
        raise ModelError(str(error), hint="convert the model again") from error


def run_model(model: onnx.ModelProto, feed: Feed, *, optimise: bool = True) -> dict[str, npt.NDArray[Any]]:
    """Open a session, run one sample, and let go."""
    return run_session(open_session(model, optimise=optimise), feed)


def first_line(error: Exception | str) -> str:
    """What the runtime complains of, in one line and without the places in its source."""
    text = str(error).strip().splitlines()[0]
    return re.sub(r"\s+", " ", re.sub(_SOURCE_LINE, "", re.sub(_CODE, "", text)))[:300].strip()


def _place(error: Exception) -> str:
    found = next((match for match in (re.search(p, str(error)) for p in _PLACES) if match is not None), None)
    return f"node '{found.group(1)}'" if found is not None else ""
