"""Provenance: what the metadata of a converted model says about how it came about."""

from __future__ import annotations

from converter import __version__
from converter.calibration.preprocess import Preprocess, spec_text
from converter.calibration.samples import SampleSet
from converter.load.model import Source
from converter.load.vetting import VERSION_KEY
from converter.options import Options
from converter.plan.records import Plan

__all__ = ["PREPROCESS_KEY", "provenance"]

PREPROCESS_KEY = "bridgequant.preprocess"
"""Metadata in which a model says how its images are prepared."""


def provenance(source: Source, plan: Plan, samples: SampleSet, preprocess: Preprocess | None, options: Options) -> dict[str, str]:
    """The source's metadata, then ours: no time, no host and no path, so that the same conversion gives the same bytes."""
    own = {
        VERSION_KEY: __version__,
        "bridgequant.method": plan.method,
        "bridgequant.bits": str(plan.bits),
        "bridgequant.target": plan.target,
        "bridgequant.calibration": samples.digest,
        "bridgequant.seed": str(options.seed),
        "bridgequant.source": source.digest,
    }
    if preprocess is not None:
        own[PREPROCESS_KEY] = spec_text(preprocess)
    return {**source.metadata, **{key: value for key, value in own.items() if key not in source.metadata}}
