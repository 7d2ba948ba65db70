"""Plans of the small hybrid network by each method, and how near to float they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

import converter
from converter.calibration.observer import collect_statistics
from converter.canonicalise import canonicalise
from converter.emit.builder import emit
from converter.methods.names import MethodName
from converter.methods.search_parts import SearchParts
from converter.options import Options
from converter.partition.requantize_copies import add_requantize_copies
from converter.planning.make import Planned, make_plan
from converter.runtime.session import Feed, open_session, run_session
from converter.sensitivity.context import ReconstructionBlock
from converter.targets import TARGETS
from converter.targets.target_file import read_target
from converter.testing.models import hybrid_model
from converter.testing.sketch import settings_for
from converter.transforms.equalization.apply import Equalization, apply_equalizations
from converter.transforms.equalization.find import find_sites
from converter.verify.quality import sqnr

FEEDS: list[Feed] = [{"image": np.random.default_rng(i).random((1, 3, 32, 32), dtype=np.float32)} for i in range(40)]

BY_SIZE = read_target(Path(converter.__file__).parent / "testing" / "by_size.toml", "target of the tests")
"""Each node has its price whatever its size on real targets; there, most of a network so small would stay float."""


def hybrid(spread: float = 1.0, activation_bits: int = 8) -> ir.Model:
    """The small hybrid network; with a spread, its channels' ranges differ by as much wherever that leaves the function."""
    model = canonicalise(hybrid_model(), FEEDS[:1]).model
    if spread > 1.0:
        generator = np.random.default_rng(1)
        sites = {n: s for n, s in find_sites(model).items() if s.kind == "cross_layer"}
        equalizations = {
            n: Equalization(tuple(np.exp(generator.uniform(-0.5, 0.5, s.channels) * np.log(spread)))) for n, s in sites.items()
        }
        model = apply_equalizations(model, sites, equalizations)
    if activation_bits < 8:
        add_requantize_copies(model, frozenset())
    return model


def planned(
    model: ir.Model,
    method: MethodName,
    bits: str = "W8A8",
    reconstruction_blocks: tuple[ReconstructionBlock, ...] = (),
    seed: int = 0,
    *,
    without: Sequence[str] = (),
) -> Planned:
    """The plan of a search without some of its parts, and without what trades nearness for speed; blocks count if they are given."""

    def look(model: ir.Model) -> Any:
        return collect_statistics(model, FEEDS[:8], threads=1)

    parts = replace(SearchParts(), bridge=bool(reconstruction_blocks), **dict.fromkeys(["piecewise_linear", *without], False))
    options = Options(method=method, bits=bits, seed=seed, parts=parts, placement="balanced:0")
    return make_plan(model, look(model), look, FEEDS[:8], reconstruction_blocks, BY_SIZE, options, frozenset())


def logits(model: ir.Model, result: Planned) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What the float model and the emitted one give in the runtime on other samples."""
    floats = open_session(ir.to_proto(model), threads=1)
    session = open_session(ir.to_proto(emit(result.model, result.plan, {})), threads=1, settings=settings_for(TARGETS["arm64"]))
    pairs = [(run_session(floats, f)["logits"], run_session(session, f)["logits"]) for f in FEEDS[8:]]
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def quality(model: ir.Model, result: Planned) -> float:
    """SQNR of the emitted model against the float model."""
    return sqnr(*logits(model, result))
