"""Provenance: what the metadata of a converted model says about how it came about."""

from __future__ import annotations

from collections.abc import Mapping

from converter import __version__
from converter.calibration.preprocess import Preprocess, spec_text
from converter.calibration.samples import SampleSet
from converter.load import metadata
from converter.load.model import Source
from converter.options import Options
from converter.plan.records import Plan
from converter.quantization.output_codes import OUTPUT_CODES, output_codes_text
from converter.quantization.parameters import QuantParams

__all__ = ["provenance"]


def provenance(
    source: Source,
    plan: Plan,
    samples: SampleSet,
    preprocess: Preprocess | None,
    options: Options,
    requires: str,
    codes: Mapping[str, QuantParams],
) -> dict[str, str]:
    """The source's metadata, then ours: no time, no host and no path, so that the same conversion gives the same bytes.

    Args:
        codes: parameters of the outputs that are codes.
        requires: the runtime that the file needs, as a requirement of Python packages.
    """
    own = {
        metadata.VERSION: __version__,
        metadata.METHOD: plan.method,
        metadata.BITS: str(plan.bits),
        metadata.TARGET: plan.target,
        metadata.CALIBRATION: samples.digest,
        metadata.SEED: str(options.seed),
        metadata.SOURCE: source.digest,
        metadata.REQUIRES: requires,
    }
    if preprocess is not None:
        own[metadata.PREPROCESS] = spec_text(preprocess)
    if plan.io != "float":
        own[metadata.IO] = plan.io
    if codes:
        own[OUTPUT_CODES] = output_codes_text(codes)
    return {**source.metadata, **{key: value for key, value in own.items() if key not in source.metadata}}
