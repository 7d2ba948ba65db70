"""Small random ONNX models, and what must hold for the conversion of any of them; ``python -m tools.fuzz graphs`` draws many."""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converter.errors import ConverterError, ModelError
from converter.methods.names import DEFAULT_METHOD, MethodName
from converter.runtime.session import open_session, run_session
from converter.testing.random_graphs.draft import Array, Draft, Unfit, standard_import
from converter.testing.random_graphs.fairness import Judgement, judge
from converter.testing.random_graphs.steps_layers import LAYERS, NORMALISATIONS, gemm_of
from converter.testing.random_graphs.steps_movement import MOVEMENT, RARE, squeeze_node
from converter.testing.random_graphs.steps_pointwise import POINTWISE

if TYPE_CHECKING:
    from converter.report import Report

__all__ = ["METHODS", "Case", "Ending", "convert_case", "draw_case", "graphs", "worse_outputs"]

OLDEST_OPSET = 9
CALIBRATION_SAMPLES, POOL, FRESH_SAMPLES = 32, 120, 48
DRAWS = 3
"""Of the calibration samples from the pool; which one, the conversion's seed says."""
PLACEMENTS = ("latency", "all")
METHODS: tuple[MethodName, ...] = ("mse", DEFAULT_METHOD)

_USUAL = {
    **{name: LAYERS[name] for name in ("conv", "gemm", "matmul_constant", "attention")},
    **{name: POINTWISE[name] for name in ("activation", "spelled_activation", "arithmetic_constant", "arithmetic_computed")},
    **{name: NORMALISATIONS[name] for name in ("layer_norm", "batch_norm")},
}

_KINDS = (_USUAL, _USUAL, _USUAL, LAYERS, LAYERS, POINTWISE, POINTWISE, MOVEMENT, MOVEMENT, NORMALISATIONS, RARE)


@dataclass(frozen=True)
class Input:
    """One input and how its values are distributed.

    Attributes:
        name: of the input.
        kind: normal, picture (uint8), mask (zeros and ones), ids (0 to 7), bool or half.
        shape: with a batch of whatever is fixed, or of 1.
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Element type."""
        kinds = {"picture": np.uint8, "ids": np.int64, "bool": np.bool_, "half": np.float16}
        return np.dtype(kinds.get(self.kind, np.float32))

    def values(self, rows: int, generator: np.random.Generator) -> Array:
        """So many rows, one after the other along axis 0."""
        shape = (rows, *self.shape[1:])
        if self.kind == "picture":
            return generator.integers(0, 256, shape, np.uint8)
        if self.kind == "ids":
            return generator.integers(0, 8, shape, np.int64)
        if self.kind in ("mask", "bool"):
            return (generator.random(shape) < 0.7).astype(self.dtype)
        return generator.standard_normal(shape).astype(self.dtype)


@dataclass(frozen=True)
class Case:
    """A model and the distribution of its inputs.

    Attributes:
        model: valid, and ONNX Runtime runs it.
        inputs: of the model, in order.
        placement: to convert it with.
        steps: names of what it was built from.
    """

    model: onnx.ModelProto = field(repr=False)
    inputs: tuple[Input, ...]
    placement: str
    steps: tuple[str, ...]

    def feeds(self, rows: int, seed: int) -> list[dict[str, Array]]:
        """So many samples of the input distribution."""
        return _feeds(self.inputs, self.inputs[0].shape[0], rows, seed)


def _feeds(inputs: Sequence[Input], batch: int, rows: int, seed: int) -> list[dict[str, Array]]:
    generator = np.random.default_rng(seed)
    return [{i.name: i.values(batch, generator) for i in inputs} for _ in range(rows)]


def graphs() -> st.SearchStrategy[Case]:
    """Random models whose choices hypothesis makes and shrinks."""
    return st.randoms(use_true_random=False).map(draw_case)


def draw_case(random: Random) -> Case:
    """A random model of 3 to about 12 nodes, which the checker and the runtime accept."""
    while True:
        try:
            return _drawn(random)
        except Unfit:  # the checker objects to what the runtime takes, or an output is the same for all inputs
            continue


def _drawn(random: Random) -> Case:
    opset = _choice(random, [17, 20, 13, *range(OLDEST_OPSET, onnx.defs.onnx_opset_version() + 1)])
    open_batch = random.randrange(4) == 3
    batch = 2 if not open_batch and random.randrange(8) == 7 else 1
    inputs = _inputs(random, batch)
    draft = Draft(random, np.random.default_rng(random.randrange(2**32)), opset, open_batch)
    trials = _feeds(inputs, batch, 1, seed=0) + _feeds(inputs, 2 if open_batch else batch, 1, seed=1)
    draft.values = {i.name: [trial[i.name] for trial in trials] for i in inputs}
    steps = [f"start {inputs[0].kind}"] if _entered(draft, inputs) else []
    if not draft.floats:
        raise Unfit("there is nothing to start from")
    wanted, tries = random.randrange(3, 13), 0
    while len(draft.nodes) < wanted and tries < 60:
        kind = _choice(random, _KINDS)
        name = _choice(random, list(kind))
        tries += 1
        if draft.attempt(kind[name]):
            steps.append(name)
    if random.randrange(4) == 3 and draft.attempt(classifier):
        steps.append("classifier")
    model = _finished(draft, inputs)
    return Case(model, tuple(inputs), _choice(random, PLACEMENTS), tuple(steps))


def _choice(random: Random, options: Sequence[Any]) -> Any:
    return options[random.randrange(len(options))]


# Inputs


def _inputs(random: Random, batch: int) -> list[Input]:
    side, length = _choice(random, [8, 6, 9]), _choice(random, [6, 9, 4])
    shapes = {
        "map": (batch, _choice(random, [3, 1, 4]), side, side),
        "tokens": (batch, length, _choice(random, [8, 5, 1])),
        "vector": (batch, _choice(random, [12, 8, 1])),
        "signal": (batch, _choice(random, [4, 1]), 16),
        "volume": (batch, 2, 4, 5, 4),
        "channels last": (batch, side, side, 3),
    }
    kinds = ["map", "map", "map", "tokens", "tokens", "vector", "signal", "volume", "channels last", "picture", "ids"]
    kind = _choice(random, kinds)
    if kind == "picture":
        first = Input("image", "picture", shapes[_choice(random, ["map", "channels last"])])
    elif kind == "ids":
        first = Input("ids", "ids", (batch, length))
    else:
        first = Input("x", "half" if random.randrange(16) == 15 else "normal", shapes[kind])
    second = _choice(random, ["none", "none", "none", "none", "normal", "mask", "bool", "ids"])
    if second == "none":
        return [first]
    shape = {"normal": first.shape, "mask": (batch, *[1] * (len(first.shape) - 2), first.shape[-1]), "bool": (batch, 1), "ids": (batch, 2)}
    both = [first, Input(f"second_{second}", second, shape[second])]
    return both[::-1] if random.randrange(3) == 2 else both


def _entered(draft: Draft, inputs: Sequence[Input]) -> bool:
    """Bring all inputs to floating point; some stay unused."""
    entered = False
    for spec in inputs:
        if not draft.one_in(6):
            entered |= draft.attempt(functools.partial(_enter, spec=spec))
    return entered


def _enter(draft: Draft, spec: Input) -> str:
    if spec.kind == "normal":
        return spec.name
    if spec.kind == "ids":
        return str(draft.add("Gather", draft.weight((8, 6), 1), spec.name, axis=0))
    x = str(draft.add("Cast", spec.name, to=TensorProto.FLOAT)) if spec.kind != "mask" else spec.name
    if spec.kind == "picture":
        x = draft.add("Mul", x, draft.scalar(1 / 255))
        return str(draft.add("Transpose", x, perm=[0, 3, 1, 2])) if spec.shape[-1] == 3 else x
    if spec.kind in ("mask", "bool") and draft.one_in(2):
        return str(draft.add("Sub", draft.scalar(1), x))
    return x


# Outputs


def classifier(draft: Draft) -> str:
    """Pool and classify."""
    x = draft.pick_rank(2, 3, 4)
    if draft.rank(x) > 2:
        x = draft.add("GlobalAveragePool", x)
        axes = list(range(2, draft.rank(x)))
        x = squeeze_node(draft, x, axes) if draft.one_in(2) else draft.add("Flatten", x, axis=1)
    return gemm_of(draft, x)


def _finished(draft: Draft, inputs: Sequence[Input]) -> onnx.ModelProto:
    names = {i.name for i in inputs}
    made = [name for name in draft.floats if name not in names]
    if not made:
        raise Unfit("no node")
    outputs = [made[-1]]
    while draft.one_in(4):
        outputs.append(draft.choice(made))
    outputs = list(dict.fromkeys(outputs)) + _extra_outputs(draft, inputs)
    if draft.one_in(24):
        outputs.append(outputs[0])
    made_by_nodes = {name for node in draft.nodes for name in node.output}
    used = {name for node in draft.nodes for name in node.input} | set(outputs)
    graph = helper.make_graph(
        draft.nodes,
        "random",
        [_declared(draft, i.name) for i in inputs],
        [_declared(draft, name) for name in outputs],
        [numpy_helper.from_array(a, n) for n, a in draft.constants.items() if n in used and n not in made_by_nodes],
    )
    model = helper.make_model(graph, **standard_import(draft.opset))
    _dressed(draft, model)
    try:
        onnx.checker.check_model(model, full_check=True)
        session = open_session(model, threads=1)
        for trial in range(draft.trials):
            run_session(session, {i.name: draft.values[i.name][trial] for i in inputs})
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ModelError) as error:
        raise Unfit(str(error)) from None
    return model


def _dressed(draft: Draft, model: onnx.ModelProto) -> None:
    """What differs between exporters: names of nodes, shapes of what is between them, imports that nothing uses."""
    if draft.one_in(4):
        for node in model.graph.node:
            node.name = ""
    if draft.one_in(3):
        model.graph.value_info.extend(onnx.shape_inference.infer_shapes(model).graph.value_info)
    if draft.one_in(12):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _extra_outputs(draft: Draft, inputs: Sequence[Input]) -> list[str]:
    """What few models have: integers, constants, an input passed through."""
    kind = draft.choice(["none"] * 12 + ["integer", "integer", "constant", "passed through", "shape"])
    if kind == "integer":
        x = draft.pick()
        return [draft.add("ArgMax", x, axis=draft.rank(x) - 1)] if draft.rank(x) >= 2 and draft.shape(x)[-1] else []
    if kind == "constant":
        return [draft.constant(np.asarray([[1.5, -2.0]], np.float32))]
    if kind == "passed through":
        return [inputs[0].name]
    return [draft.add("Shape", draft.pick())] if kind == "shape" and not draft.open_batch else []


def _declared(draft: Draft, name: str) -> onnx.ValueInfoProto:
    """With a symbol for each dimension that differs between the trial feeds."""
    arrays = draft.values[name]
    shapes = zip(*(a.shape for a in arrays), strict=True)
    dims = [sizes[0] if len(set(sizes)) == 1 else "n" if sizes == (1, 2) else f"n{sizes[0]}_{sizes[1]}" for sizes in shapes]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(arrays[0].dtype), dims)


# Conversion


@dataclass(frozen=True)
class Ending:
    """How a conversion ended.

    Attributes:
        code: exit code; 1 stands for anything but a :class:`ConverterError`.
        reason: what was said, or the traceback.
        path: of the result, if there is one.
        seconds: of processor time that it took.
        report: of a conversion that ended well.
    """

    code: int
    reason: str
    path: Path
    seconds: float = 0.0
    report: Report | None = field(default=None, repr=False, compare=False)


def convert_case(case: Case, folder: Path, method: MethodName, *, draw: int = 0) -> Ending:
    """Convert in this process with one of the draws of calibration samples; what escapes is told, not raised."""
    from converter import Options, convert

    source, calib, result = folder / "float.onnx", folder / "calib.npz", folder / f"int8{method}{draw}.onnx"
    _save(case, source, calib)
    samples = CALIBRATION_SAMPLES * case.inputs[0].shape[0]
    options = Options(calib=calib, samples=samples, method=method, placement=case.placement, threads=1, seed=draw)
    begun = time.process_time()
    try:
        report = convert(source, result, options)
    except ConverterError as error:
        return Ending(error.exit_code, str(error), result, time.process_time() - begun)
    except Exception:
        return Ending(1, traceback.format_exc(), result, time.process_time() - begun)
    return Ending(0, "", result, time.process_time() - begun, report)


def _save(case: Case, model: Path, calib: Path) -> None:
    model.write_bytes(case.model.SerializeToString(deterministic=True))
    feeds = case.feeds(POOL, seed=2)
    np.savez(calib, allow_pickle=False, **{i.name: np.concatenate([feed[i.name] for feed in feeds]) for i in case.inputs})


def worse_outputs(case: Case, folder: Path, endings: Sequence[Ending]) -> list[Judgement]:
    """Outputs that are worse by the default method than by ``mse``, whichever samples both are calibrated on.

    What a few small tensors hold on 32 samples is chance, and so is where a constant lies on a grid: if they differ,
    other samples are drawn, and all three draws have to agree.

    Args:
        case: what was converted.
        folder: where it was.
        endings: by both methods with the first draw.
    """
    if any(ending.code for ending in endings):
        return []
    feeds = case.feeds(FRESH_SAMPLES, seed=3)
    worse = [j for j in judge(case.model, [ending.path for ending in endings], feeds) if j.worse]
    for draw in range(1, DRAWS):
        if worse:
            paths = [convert_case(case, folder, method, draw=draw).path for method in METHODS]
            again = {j.output for j in judge(case.model, paths, feeds) if j.worse}
            worse = [j for j in worse if j.output in again]
    return worse
