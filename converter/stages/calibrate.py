"""Samples, the model in canonical form, and what it does on them: all that a plan needs to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from converter.calibration.array_files import ArrayStore
from converter.calibration.given_samples import GIVEN, given_arrays
from converter.calibration.input_shapes import calibration_shapes
from converter.calibration.input_specs import InputSpec
from converter.calibration.observer import CalibrationStatistics, collect_statistics
from converter.calibration.preprocess import Preprocess, mean_and_std, stated_preprocess
from converter.calibration.samples import SampleSet, load_samples
from converter.canonicalise import PROOF_SAMPLES, Canonical, canonicalise, undone
from converter.errors import CalibrationError, UsageError
from converter.graph.exclusions import excluded_nodes
from converter.graph.source_nodes import name_after_source
from converter.graph.weight_files import release_pages
from converter.load.model import Source
from converter.load.pixel_inputs import with_pixel_inputs
from converter.options import Options
from converter.partition.bit_widths import CONTAINER_BITS
from converter.partition.requantize_copies import add_requantize_copies
from converter.planning.search import find_losses
from converter.progress import SILENT, Progress
from converter.sensitivity.output_loss import OutputLoss
from converter.targets import Target, find_target
from converter.targets.costs import Shapes

__all__ = ["Calibrated", "calibrate"]


@dataclass(frozen=True)
class Calibrated:
    """A model of which all is known that a plan needs.

    Attributes:
        source: the float model.
        options: how it is converted.
        target: kernels and costs.
        samples: to calibrate and to compare on.
        preprocess: of images; None for scaling to 0..1.
        remarks: sentences on what was assumed.
        canonical: the model in canonical form; its operators are named after the source's.
        excluded: names of operators that stay float.
        seen: ranges, shapes and values of its tensors on the samples.
        inputs: of the model, at the sizes of the samples.
        losses: by which each float output counts.
    """

    source: Source
    options: Options
    target: Target
    samples: SampleSet
    preprocess: Preprocess | None
    remarks: tuple[str, ...]
    canonical: Canonical
    excluded: frozenset[str]
    seen: CalibrationStatistics
    inputs: tuple[InputSpec, ...]
    losses: Mapping[str, OutputLoss]

    @property
    def shapes(self) -> Shapes:
        """Of all tensors, as calibrated."""
        return {name: stats.shape for name, stats in self.seen.tensors.items()}

    def look(self, model: ir.Model) -> CalibrationStatistics:
        """Observe another model, such as the canonical one transformed, on the same samples."""
        return collect_statistics(model, self.samples.calibration, seed=self.options.seed, threads=self.options.threads)


def calibrate(source: Source, options: Options, progress: Progress = SILENT) -> Calibrated:
    """Collect samples, bring the model into canonical form, and observe it on them.

    Raises:
        ConverterError: the samples cannot be used, the model does not run, or an option does not fit the model.
    """
    target = find_target(options.target)
    if options.io != "float":
        source = _taking_pixels(source, options)
    samples, inputs, preprocess, remarks = _samples(source, options, progress)
    progress.stage("canonicalise")
    canonical = canonicalise(source.model, samples.calibration[:PROOF_SAMPLES], target)
    for remark in undone(canonical):
        remarks.append(remark)
        progress.note(remark)
    name_after_source(source.model, canonical.model)
    excluded = excluded_nodes(options.exclude, source.model, canonical.model)
    if options.widths.activations < CONTAINER_BITS:
        add_requantize_copies(canonical.model, excluded)
    progress.stage("observe")
    release_pages(canonical.model)
    seen = collect_statistics(canonical.model, samples.calibration, seed=options.seed, threads=options.threads, progress=progress.step)
    losses = find_losses(canonical.model, samples.calibration, options)
    return Calibrated(source, options, target, samples, preprocess, tuple(remarks), canonical, excluded, seen, tuple(inputs), losses)


def _taking_pixels(source: Source, options: Options) -> Source:
    """The model with pixels for inputs, which it normalises as the options or its metadata say.

    Raises:
        UsageError: nobody says how, or no input takes pictures.
    """
    preprocess = options.preprocess or stated_preprocess(source.metadata)
    if preprocess is None:
        hint = "say it: --preprocess unit (0..1), symmetric (-1..1), imagenet or 'mean=..;std=..'"
        raise UsageError("how pixels become the numbers that the model takes is not known", where=f"--io {options.io}", hint=hint)
    return with_pixel_inputs(source, lambda channels: mean_and_std(preprocess, channels))


def _samples(source: Source, options: Options, progress: Progress) -> tuple[SampleSet, list[InputSpec], Preprocess | None, list[str]]:
    """Samples, the inputs at their sizes, how images become arrays, and what there is to say of that."""
    if options.require_data and options.calib is None:
        raise CalibrationError("there are no calibration data", where="--require-data", hint="give some with --calib")
    data, name = _given(source, options)
    specs, guess = calibration_shapes(source, options.input_shapes, data, options.threads)
    preprocess = options.preprocess
    if preprocess is None:
        preprocess = stated_preprocess(source.metadata)
    samples = load_samples(data, specs, count=options.samples, preprocess=preprocess, seed=options.seed)
    if options.require_data and samples.doubts:
        hint = "give data as the model will meet them, or leave --require-data out"
        raise CalibrationError(samples.doubts[0], where=f"--require-data with {name}", hint=hint)
    remarks = [*source.notes, *([guess] if guess else []), *_remarks(samples)]
    for remark in (*remarks, *samples.doubts):
        progress.note(remark)
    return samples, specs, preprocess, remarks


def _given(source: Source, options: Options) -> tuple[Path | ArrayStore | None, str]:
    """What there is to calibrate on, if anything, and its name for messages."""
    calib = options.calib
    if calib is None:
        return None, GIVEN
    if isinstance(calib, (str, Path)):
        return Path(calib), f"--calib {calib}"
    return given_arrays(calib, source.inputs, options.samples), GIVEN


def _remarks(samples: SampleSet) -> Iterator[str]:
    if samples.kind == "synthetic":
        yield "calibrated on built-in synthetic samples; for better accuracy give real ones with --calib"
    yield from samples.assumed
    if samples.skipped:
        yield f"{samples.skipped} unreadable images were skipped"
    if samples.shared:
        yield "there was one sample only: it was used to calibrate and to compare"
