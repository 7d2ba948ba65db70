"""Conversions from end to end: what is kept, what is added, and what the emitted model can do."""

from __future__ import annotations

import json
import math
import platform
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

from converter import __version__, canonicalise
from converter.errors import BoundMissedError, CalibrationError, ConverterError, ModelError, UsageError
from converter.methods.problem import Problem
from converter.methods.protocol import Proposal
from converter.options import Options
from converter.pipeline import convert
from converter.planning.registry import METHODS
from converter.progress import Progress
from converter.report import Report, report_json
from converter.runtime.session import open_session, run_session
from converter.stages import calibrate as calibrate_stage
from converter.stages import emit as emit_stage
from converter.stages import verify as verify_stage
from converter.targets import TARGETS, Target
from converter.testing.models import SaveHybrid, Values, hybrid_model, make_model
from converter.testing.plans import equalizations_of
from converter.transforms.equalization.site import Equalization
from converter.transforms.equalization.transform import Equalizations
from converter.verify.quality import GroupQuality, OutputQuality, sqnr
from converter.verify.verdict import Verdict, verify

pytestmark = pytest.mark.usefixtures("few_turns")


def options(**changes: Any) -> Options:
    return Options(**{"samples": 4, "threads": 1, "method": "minmax", "placement": "all", **changes})


def signature(model: onnx.ModelProto) -> list[bytes]:
    return [v.SerializeToString(deterministic=True) for v in (*model.graph.input, *model.graph.output)]


def pictures(*shape: int) -> dict[str, Any]:
    """Smooth pictures, as the network was calibrated with: scores then lie in the range that was seen."""
    generator = np.random.default_rng(1)
    coarse = generator.uniform(0.2, 0.8, (*shape[:2], 4, 4))
    return {"image": np.kron(coarse, np.ones((1, 1, shape[2] // 4, shape[3] // 4))).astype(np.float32)}


def compared(one: Path, other: Path, feed: dict[str, Any]) -> float:
    a, b = (run_session(open_session(path), feed)["logits"] for path in (one, other))
    assert a.shape == b.shape
    return sqnr(a, b)


# What is kept


@pytest.mark.parametrize("switches", [{}, {"dynamic_batch": True}, {"dynamic_batch": True, "dynamic_size": True}, {"opset": 20}])
def test_the_interface_is_kept(save_hybrid: SaveHybrid, tmp_path: Path, switches: dict[str, Any]) -> None:
    source = save_hybrid(**switches)
    convert(source, tmp_path / "out.onnx", options(input_shapes={"image": (1, 3, 32, 32)}))
    before, after = onnx.load(source), onnx.load(tmp_path / "out.onnx")
    assert [(v.name, v.type) for v in before.graph.input] == [(v.name, v.type) for v in after.graph.input]
    assert [(v.name, v.type) for v in before.graph.output] == [(v.name, v.type) for v in after.graph.output]


def test_several_inputs_and_outputs_keep_their_order(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Add", ["r", "a"], ["z"]),
        helper.make_node("ArgMax", ["z"], ["k"], axis=-1),
        helper.make_node("Identity", ["b"], ["y"]),
    ]
    shape: list[int | str | None] = ["n", 6]
    model = make_model(
        nodes,
        [("b", TensorProto.FLOAT, shape), ("a", TensorProto.FLOAT, shape)],
        [("z", TensorProto.FLOAT, shape), ("k", TensorProto.INT64, ["n", 1]), ("y", TensorProto.FLOAT, shape)],
    )
    onnx.save(model, tmp_path / "in.onnx")
    convert(tmp_path / "in.onnx", tmp_path / "out.onnx", options())
    after = onnx.load(tmp_path / "out.onnx")
    assert signature(model) == signature(after)


def test_a_preprocessing_that_is_damaged_in_the_model_is_the_models_fault(tmp_path: Path) -> None:
    onnx.save(hybrid_model(metadata={"bridgequant.preprocess": "mean=0.5;std=nan"}), tmp_path / "in.onnx")
    with pytest.raises(ModelError) as caught:
        convert(tmp_path / "in.onnx", tmp_path / "out.onnx", options())
    assert "bridgequant.preprocess" in caught.value.where and not (tmp_path / "out.onnx").exists()


def test_metadata_are_kept_and_provenance_is_added(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    metadata = {"z": "last", "bridgequant.preprocess": "symmetric", "a": "first", "bridgequant.classes": "[]"}
    onnx.save(hybrid_model(metadata=metadata), tmp_path / "in.onnx")
    report = convert(tmp_path / "in.onnx", tmp_path / "out.onnx", options(seed=3, target="x86"))
    after = {p.key: p.value for p in onnx.load(tmp_path / "out.onnx").metadata_props}
    assert list(after.items())[:4] == list(metadata.items())
    assert {k: v for k, v in after.items() if k not in metadata} == {
        "bridgequant.version": __version__,
        "bridgequant.method": "minmax",
        "bridgequant.bits": "W8A8",
        "bridgequant.target": "x86",
        "bridgequant.calibration": report.calibration_digest,
        "bridgequant.seed": "3",
        "bridgequant.source": after["bridgequant.source"],
        "bridgequant.requires": "onnxruntime>=1.19",
    }
    assert str(tmp_path) not in str(after)


def test_the_digest_follows_the_data(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        return convert(save_hybrid(), tmp_path / "out.onnx", options(**changes), dry_run=True).calibration_digest

    assert digest() == digest() != digest(seed=1)


def test_the_same_conversion_gives_the_same_bytes(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    for name in ("a", "b"):
        convert(save_hybrid(), tmp_path / f"{name}.onnx", options())
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_input_file_is_not_touched(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    before = save_hybrid().read_bytes()
    convert(save_hybrid(), tmp_path / "out.onnx", options())
    assert save_hybrid().read_bytes() == before


# What the emitted model can do


def test_it_answers_like_the_float_model_in_integer(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    report = convert(save_hybrid(), tmp_path / "out.onnx", options(samples=16))
    assert report.verdict is not None and report.verdict.integer_coverage.coverage > 0.5
    assert (report.verdict.outputs[0].sqnr_db or 0.0) > 20
    assert compared(save_hybrid(), tmp_path / "out.onnx", pictures(1, 3, 32, 32)) > 15


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (3, 3, 32, 32), (1, 3, 48, 64), (2, 3, 64, 40)])
def test_open_dimensions_stay_open(save_hybrid: SaveHybrid, tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...]) -> None:
    source = save_hybrid(dynamic_batch=True, dynamic_size=True)
    output = tmp_path_factory.getbasetemp() / "pipeline_open.onnx"
    if not output.exists():
        convert(source, output, options(samples=16, input_shapes={"image": (1, 3, 32, 32)}))
    assert compared(source, output, pictures(*shape)) > 12


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


@pytest.mark.parametrize("method", ["q-hyvit", "mse"])
def test_half_precision_models_keep_their_interface_and_are_judged_like_others(
    method: str, save_hybrid: SaveHybrid, tmp_path: Path
) -> None:
    (tmp_path / "in.onnx").write_bytes(in_half_precision(hybrid_model()).SerializeToString())
    report = convert(tmp_path / "in.onnx", tmp_path / "out.onnx", options(method=method, placement="latency"))
    assert signature(onnx.load(tmp_path / "out.onnx")) == signature(onnx.load(tmp_path / "in.onnx"))
    assert any("half precision" in note for note in report.notes)
    assert report.verdict is not None and report.verdict.parity_reference == "a simulation of the plan"
    same = convert(save_hybrid(), tmp_path / "same.onnx", options(method=method, placement="latency"))
    assert report.loss == same.loss and (method == "mse" or "logits" in report.loss)
    image = pictures(1, 3, 32, 32)
    float_logits = run_session(open_session(save_hybrid()), image)["logits"]
    half_logits = run_session(open_session(tmp_path / "out.onnx"), {"image": image["image"].astype(np.float16)})["logits"]
    assert half_logits.dtype == np.float16 and sqnr(float_logits, half_logits) > 25.0


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("tool", ["quant_pre_process", "session"])
def test_models_that_the_runtime_has_prepared(tool: str, opset: int, save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    """They import every domain that the runtime knows."""
    prepared = tmp_path / "in.onnx"
    if tool == "quant_pre_process":
        quant_pre_process(save_hybrid(opset=opset), prepared)
    else:
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        settings.optimized_model_filepath = str(prepared)
        onnxruntime.InferenceSession(save_hybrid(opset=opset), settings, providers=["CPUExecutionProvider"])
    assert len(onnx.load(prepared).opset_import) > 1
    convert(prepared, tmp_path / "out.onnx", options())
    assert compared(prepared, tmp_path / "out.onnx", pictures(1, 3, 32, 32)) > 25.0


def test_external_data_are_read_and_not_needed_afterwards(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    onnx.save(hybrid_model(), tmp_path / "plain.onnx")
    onnx.save(hybrid_model(), tmp_path / "in" / "in.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    report = convert(tmp_path / "in" / "in.onnx", tmp_path / "out.onnx", options())
    assert report.float_bytes == sum(p.stat().st_size for p in (tmp_path / "in").iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.onnx", "plain.onnx"]
    assert compared(tmp_path / "plain.onnx", tmp_path / "out.onnx", pictures(1, 3, 32, 32)) > 15


# Exclusions


def float_products(path: Path, **_: Any) -> set[str]:
    """Names of the products of an emitted model that read no weight through a DequantizeLinear."""
    graph = onnx.load(path).graph
    makers = {o: n.op_type for n in graph.node for o in n.output}
    products = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    return {n.name for n in products if makers.get(n.input[1]) != "DequantizeLinear"}


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("name", ["/stem/conv/Conv", "/block/depthwise/conv/Conv", "/mlp/fc1/MatMul", "/classifier/Gemm"])
def test_excluded_products_are_really_float(save_hybrid: SaveHybrid, tmp_path: Path, opset: int, name: str) -> None:
    report = convert(save_hybrid(opset=opset), tmp_path / "out.onnx", options(exclude=(name,)))
    assert report.verdict is not None
    named = {op.name: op for op in report.verdict.integer_coverage.float_ops if op.macs}
    assert name in float_products(tmp_path / "out.onnx")
    assert named[name].reason == "excluded by the user"


def test_excluding_all_products_leaves_no_integer_product(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    report = convert(save_hybrid(), tmp_path / "out.onnx", options(exclude=("Conv", "Gemm", "MatMul")))
    assert report.verdict is not None and report.verdict.integer_coverage.coverage == 0.0
    assert not [
        k for k in report.verdict.integer_coverage.kernels if k.startswith(("QLinearConv", "QGemm", "QLinearMatMul", "MatMulInteger"))
    ]
    report = convert(save_hybrid(), tmp_path / "out.onnx", options(exclude=("*",)))
    assert report.verdict is not None and (report.verdict.outputs[0].sqnr_db or 0.0) > 60
    assert not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node}


# The course of a conversion


def test_stages_come_in_order(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    stages: list[str] = []
    steps: list[tuple[int, int]] = []
    progress = Progress(stages.append, lambda done, total: steps.append((done, total)))
    convert(save_hybrid(), tmp_path / "out.onnx", options(latency=True), progress=progress)
    assert stages == ["load", "canonicalise", "observe", "plan", "emit", "verify", "measure"]
    assert steps and all(0 <= done <= total for done, total in steps) and steps[-1][0] == steps[-1][1]


def test_a_dry_run_writes_nothing_and_needs_no_emission(save_hybrid: SaveHybrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit_stage, "emit", None)
    report = convert(save_hybrid(), tmp_path / "out.onnx", options(), dry_run=True)
    assert report.verdict is None and report.latency is None and report.output == "" and report.integer_bytes == 0
    assert report.plan.ops and list(tmp_path.iterdir()) == []


def test_a_refusal_of_the_runtime_says_what_to_do(save_hybrid: SaveHybrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ModelError("ONNX Runtime does not load the model: no")

    monkeypatch.setattr(calibrate_stage, "canonicalise", fail)
    with pytest.raises(ModelError) as caught:
        convert(save_hybrid(), tmp_path / "out.onnx", options())
    assert caught.value.where == str(save_hybrid()) and caught.value.hint


def labelling(path: Path) -> Path:
    """A network that answers with a label for each place, and with no number."""
    generator = np.random.default_rng(0)
    weights = {"w": generator.standard_normal((5, 3, 3, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["scores"], name="conv"),
        helper.make_node("ArgMax", ["scores"], ["labels"], axis=1, keepdims=0, name="labelling"),
    ]
    outputs: Values = [("labels", TensorProto.INT64, [1, 6, 6])]
    onnx.save(make_model(nodes, [("image", TensorProto.FLOAT, [1, 3, 8, 8])], outputs, initializers=weights), path)
    return path


def test_labels_are_compared_and_told(tmp_path: Path) -> None:
    report = convert(labelling(tmp_path / "in.onnx"), tmp_path / "out.onnx", options())
    assert report.verdict is not None
    (output,) = report.verdict.outputs
    assert output.sqnr_db is None and output.agreement is not None and output.agreement > 0.9
    assert report.verdict.parity_db is None and report.verdict.parity_agreement == 1.0
    record = json.loads(report_json(report))
    assert record["outputs"][0]["agreement"] == output.agreement and record["parity_agreement"] == 1.0


def test_a_bound_on_labels_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no output of floating-point numbers") as caught:
        convert(labelling(tmp_path / "in.onnx"), tmp_path / "out.onnx", options(min_sqnr=20.0))
    assert caught.value.exit_code == 2 and caught.value.where == "--min-sqnr"
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("outputs", "missed"),
    [
        ((OutputQuality("y", 20.0, None), OutputQuality("labels", None, 0.1)), ""),
        ((OutputQuality("x", 40.0, None), OutputQuality("y", 19.9, None)), "output 'y' reaches 19.9 dB"),
        ((OutputQuality("y", 40.0, None, (GroupQuality(1, 0, 4, 41.0), GroupQuality(1, 4, 9, 0.0, "zero"))),), "output 'y' reaches 0.0 dB"),
        ((OutputQuality("y", None, None),), "its SQNR is not known"),
    ],
)
def test_every_output_and_every_group_of_channels_has_to_keep_the_bound(
    save_hybrid: SaveHybrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: tuple[OutputQuality, ...], missed: str
) -> None:
    def measured(*arguments: Any, **rest: Any) -> Verdict:
        return replace(verify(*arguments, **rest), outputs=outputs)

    monkeypatch.setattr(verify_stage, "verify", measured)
    with pytest.raises(BoundMissedError, match=missed) if missed else nullcontext():
        convert(save_hybrid(), tmp_path / "out.onnx", options(min_sqnr=20.0))
    assert (tmp_path / "out.onnx").exists() != bool(missed)


def test_errors_of_the_public_function_are_of_one_tree(tmp_path: Path, save_hybrid: SaveHybrid) -> None:
    with pytest.raises(ModelError):
        convert(tmp_path / "absent", tmp_path / "out.onnx", options())
    with pytest.raises(CalibrationError):
        convert(save_hybrid(), tmp_path / "out.onnx", options(calib=tmp_path / "absent"))
    assert issubclass(CalibrationError, ConverterError)


def test_sizes_are_those_of_the_files(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    report: Report = convert(save_hybrid(), tmp_path / "out.onnx", options())
    assert report.float_bytes == save_hybrid().stat().st_size
    assert report.integer_bytes == (tmp_path / "out.onnx").stat().st_size


@pytest.mark.parametrize("target", ["arm64", "x86"])
@pytest.mark.parametrize("wanted", [False, True])
def test_latencies_are_compared_on_a_machine_of_the_target_or_when_asked_for(
    source: Path, tmp_path: Path, target: str, wanted: bool
) -> None:
    report = convert(source, tmp_path / "out.onnx", options(target=target, latency=wanted))
    measured = wanted or platform.machine() in TARGETS[target].architectures
    assert (report.latency is not None) == measured == (report.not_measured == "")
    assert report.latency is None or math.isfinite(report.latency.ratio)


@pytest.mark.parametrize("role", ["IN", "OUT", "--calib"])
def test_a_path_that_cannot_be_one_is_refused(source: Path, tmp_path: Path, role: str) -> None:
    paths = {"IN": str(source), "OUT": str(tmp_path / "out.onnx"), "--calib": str(tmp_path)} | {role: "a\0b"}
    with pytest.raises(UsageError, match="no path can") as caught:
        convert(paths["IN"], paths["OUT"], options(calib=paths["--calib"]))
    assert caught.value.where == role


# Equalizations


def equalize_everywhere(problem: Problem) -> Proposal:
    """Equalizations at every site."""
    sites = problem.sites.items()
    equalizations = {n: Equalization(tuple(np.geomspace(0.5, 2.0, s.channels)), (0.1,) * s.channels if s.shift else ()) for n, s in sites}
    return Proposal(Equalizations(equalizations))


@pytest.mark.parametrize(("target", "sites"), [("arm64", 5), ("x86", 6)])
def test_a_method_can_equalize_and_its_plan_can_be_given_back(
    save_hybrid: SaveHybrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, sites: int
) -> None:
    """On ARM64 the layer normalization has left its factor to the layer behind, before the method is asked."""
    monkeypatch.setitem(METHODS, "minmax", replace(METHODS["minmax"], transforms=(equalize_everywhere,)))
    report = convert(save_hybrid(), tmp_path / "out.onnx", options(target=target), plan_out=tmp_path / "plan.json")
    assert {name for name in report.plan.ops if name.endswith("_scaled_Mul")}
    assert len(equalizations_of(report.plan)) == sites
    assert report.verdict is not None and (report.verdict.parity_db or 0.0) > 45.0
    convert(save_hybrid(), tmp_path / "again.onnx", options(target=target, plan_in=tmp_path / "plan.json"))
    one, other = (onnx.load(tmp_path / f"{name}.onnx") for name in ("out", "again"))
    assert one.graph == other.graph


def test_a_rewrite_that_was_undone_is_a_note_and_no_warning(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_apart(model: ir.Model, _: Target) -> tuple[ir.Model, int]:
        next(n for n in model.graph if n.op_type == "Gemm").op_type = "Nonsense"
        return model, 1

    monkeypatch.setattr(canonicalise, "_STEPS", {**canonicalise._STEPS, "break apart": break_apart})
    report = convert(source, tmp_path / "out.onnx", options())
    (note,) = [note for note in report.notes if "rewrite" in note]
    assert note.startswith("rewrite 'break apart' was left out, because it leaves outputs infinite or missing on calibration samples")
    assert not any("rewrite" in warning for warning in report.warnings)
