"""The mobile format of ONNX Runtime (ORT format): written with the settings of the target, and checked.

The file holds the graph as the runtime has optimised it, and a device runs it as it stands. So what is decided here is decided for good:

* int8 activations become integer kernels only if the runtime is told that the device has them (``session.qdqisint8allowed``), whatever this
  machine has;
* the blocked layouts of float convolutions (NCHWc) fit the width of this machine's registers, and other machines have no kernels for them.

The tool of the package, ``onnxruntime.tools.convert_onnx_models_to_ort``, does the same for ``--target_platform arm`` and the fixed style.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from converter.errors import ModelError, VerificationError
from converter.graph.weight_files import model_bytes
from converter.load.files import temporary_folder
from converter.runtime.session import Feed, open_session, run_session
from converter.targets import Target
from converter.verify.integer_coverage import INTEGER_PRODUCTS, profile

__all__ = ["ort_format"]

_FORMAT = {"session.save_model_format": "ORT"}
_LAYOUTS = ("NchwcTransformer",)
_OF_LAYOUTS = frozenset(["ReorderInput", "ReorderOutput"])
"""Kernels that stand where a blocked layout begins and ends."""

_HINT = "report this; the .onnx file runs on the same devices, leave --ort out for it alone"


def ort_format(model: onnx.ModelProto, target: Target, feed: Feed, kernels: Mapping[str, int]) -> bytes:
    """Write a verified model in the ORT format, read it back and compare it with the model.

    Args:
        feed: one sample.
        kernels: how many nodes of each kernel ran when the model was verified on that sample.

    Returns:
        the content of the file.

    Raises:
        VerificationError: the runtime does not write or read it, or it has lost integer kernels, holds layouts of this machine, or
            gives other answers than the model.
        UsageError: there is no room for temporary files.
    """
    settings = {"session.qdqisint8allowed": str(int(target.signed_activations))}
    with temporary_folder(4 * model_bytes(model)) as folder:
        path = folder / "model.ort"
        try:
            session = open_session(model, threads=1, settings={**settings, **_FORMAT}, optimised_path=path, without=_LAYOUTS)
            wanted = run_session(session, feed)
        except ModelError as error:
            raise VerificationError(f"the ORT format cannot be written: {error.what}", where=error.where or "--ort", hint=_HINT) from error
        try:
            got, ran = _read_back(path, feed)
        except ModelError as error:
            raise VerificationError(f"the ORT format does not run: {error.what}", where=error.where or "--ort", hint=_HINT) from error
        _check_kernels(ran, kernels)
        _check_answers(wanted, got)
        return path.read_bytes()


def _read_back(path: Path, feed: Feed) -> tuple[Mapping[str, npt.NDArray[Any]], Counter[str]]:
    """Outputs, and how many nodes of each kernel ran."""
    got = run_session(open_session(path, threads=1), feed)
    profiled = open_session(path, threads=1, profile_prefix=path.with_name("profile"))
    return got, Counter(event["args"]["op_name"] for event in profile(profiled, feed))


def _check_kernels(ran: Mapping[str, int], kernels: Mapping[str, int]) -> None:
    """Compare what ran with what ran when the model was verified.

    Raises:
        VerificationError: integer kernels are missing, or a layout is one of this machine.
    """
    for name in (name for name in kernels if name in INTEGER_PRODUCTS or name.startswith("QLinear")):
        if ran.get(name, 0) < kernels[name]:
            what = f"the ORT format has lost integer kernels: {ran.get(name, 0)} of {kernels[name]} {name} are left"
            raise VerificationError(what, where="--ort", hint=_HINT)
    if layouts := sorted(_OF_LAYOUTS & set(ran)):
        raise VerificationError(f"the ORT format holds layouts of this machine: {', '.join(layouts)}", where="--ort", hint=_HINT)


def _check_answers(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    """The same operators on the same machine give the same bits.

    Raises:
        VerificationError: they do not.
    """
    for name, output in wanted.items():
        pairs = zip(output, got[name], strict=True) if isinstance(output, list) else ((output, got[name]),)
        if not all(np.array_equal(one, other, equal_nan=one.dtype.kind == "f") for one, other in pairs):
            raise VerificationError("the ORT format gives other answers than the model", where=f"output '{name}'", hint=_HINT)
