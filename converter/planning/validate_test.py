"""Edited plans: followed, or refused by name; never a crash."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converter.errors import ConverterError, UsageError, VerificationError
from converter.options import Options
from converter.pipeline import convert
from converter.plan.constants import codes_to_text
from converter.plan.serialization import plan_to_json
from converter.planning.validate import check_plan
from converter.runtime.session import open_session, run_session
from converter.targets import TARGETS
from converter.testing.models import SaveHybrid
from converter.testing.sketch import Sketch, plan_for

Record = dict[str, Any]
Edit = Callable[[Record], object]


pytestmark = pytest.mark.usefixtures("few_turns")


def options(**changes: Any) -> Options:
    return Options(**{"samples": 3, "threads": 1, "placement": "all", **changes})


@pytest.fixture(scope="module")
def written(save_hybrid: SaveHybrid, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Record]:
    """The float model, the model that was converted without a plan, and the plan."""
    folder = tmp_path_factory.mktemp("plan")
    report = convert(save_hybrid(), folder / "out.onnx", options(method="minmax"))
    return save_hybrid(), folder / "out.onnx", json.loads(plan_to_json(report.plan))


@pytest.fixture(scope="module")
def narrow(save_hybrid: SaveHybrid, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Record]:
    """The same in 6 bits."""
    folder = tmp_path_factory.mktemp("narrow")
    report = convert(save_hybrid(), folder / "out.onnx", options(method="minmax", bits="W6A6"))
    return save_hybrid(), folder / "out.onnx", json.loads(plan_to_json(report.plan))


def converted(written: tuple[Path, Path, Record], folder: Path, edit: Edit = lambda plan: None, **changes: Any) -> bytes:
    plan = copy.deepcopy(written[2])
    edit(plan)
    (folder / "plan.json").write_text(json.dumps(plan))
    convert(written[0], folder / "out.onnx", options(plan_in=folder / "plan.json", **changes))
    return (folder / "out.onnx").read_bytes()


def refusal(written: tuple[Path, Path, Record], folder: Path, edit: Edit, **changes: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        converted(written, folder, edit, **changes)
    assert "--plan-in" in caught.value.where and caught.value.hint
    assert not (folder / "out.onnx").exists()
    return caught.value


def first(plan: Record, op_type: str, **wanted: str) -> str:
    ops: dict[str, Record] = plan["ops"]
    return next(n for n, op in ops.items() if op["op_type"] == op_type and wanted.items() <= op.items())


def consumers_of(model: bytes, op_name: str) -> list[str]:
    """Types of the nodes that feed an operator of the emitted model."""
    graph = onnx.load_from_string(model).graph
    makers = {o: n.op_type for n in graph.node for o in n.output}
    node = next(n for n in graph.node if n.name == op_name)
    return [makers.get(i, "input") for i in node.input]


def test_a_plan_that_comes_back_gives_the_same_bytes(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    assert converted(written, tmp_path) == written[1].read_bytes()


def test_the_plan_is_as_it_was_after_a_second_round(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(written[2]))
    report = convert(written[0], tmp_path / "out.onnx", options(plan_in=tmp_path / "plan.json"), plan_out=tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == written[2] == json.loads(plan_to_json(report.plan))


def run_in_float(plan: Record, name: str) -> None:
    plan["ops"][name]["runs"] = "float"


def test_operators_of_every_kind_can_be_set_to_float_or_are_refused_by_name(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    """Only "runs" is edited: what the integer form needed may stay in the file."""
    honoured = 0
    kinds = {(op["op_type"], op.get("writes")): n for n, op in written[2]["ops"].items() if op["runs"] == "integer"}
    for name in kinds.values():
        (tmp_path / "out.onnx").unlink(missing_ok=True)
        try:
            model = converted(written, tmp_path, functools.partial(run_in_float, name=name))
        except UsageError as error:
            assert "operator" in error.what and not (tmp_path / "out.onnx").exists()
            continue
        honoured += 1
        if written[2]["ops"][name]["op_type"] in ("Conv", "Gemm", "MatMul"):
            weights = consumers_of(model, name)[1:]
            assert not any(t == "DequantizeLinear" for t in weights if written[2]["ops"][name].get("constants"))
    assert honoured >= len(kinds) - 2 >= 8


def test_what_lies_in_float_is_computed_in_float(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    def all_float(plan: Record) -> None:
        for op in plan["ops"].values():
            op["runs"] = "float"
        for tensor in plan["tensors"].values():
            tensor.clear()
            tensor["kind"] = "float"

    model = onnx.load_from_string(converted(written, tmp_path, all_float))
    assert not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in model.graph.node}
    feed = {"image": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)}
    got, wanted = (logits(path, feed) for path in (tmp_path / "out.onnx", written[0]))
    assert np.allclose(got, wanted, atol=1e-4)


def logits(path: Path, feed: dict[str, Any]) -> Any:
    return run_session(open_session(path), feed)["logits"]


def test_an_edited_grid_is_used(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    scale = 0.0625
    model = onnx.load_from_string(converted(written, tmp_path, lambda plan: plan["tensors"]["image"]["params"].update(scale=[scale])))
    scales = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    assert scales[next(n for n in model.graph.node if n.input[0] == "image").input[1]] == scale


def test_an_exclusion_goes_before_the_plan(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    model = converted(written, tmp_path, exclude=("/stem/conv/Conv",))
    assert "DequantizeLinear" not in consumers_of(model, "/stem/conv/Conv")


def rename_op(plan: Record) -> None:
    plan["ops"]["nobody"] = plan["ops"].pop(next(iter(plan["ops"])))


def drop_tensor(plan: Record) -> None:
    del plan["tensors"]["image"]


def shift_movement(plan: Record) -> None:
    name = next(n for n, t in plan["tensors"].items() if t["kind"] == "shared")
    plan["tensors"][name]["params"]["scale"] = [0.5]


def share_computed(plan: Record) -> None:
    plan["tensors"][f"{first(plan, 'Mul', writes='codes')}_output_0"].update(kind="shared", source="image")


EDITS: dict[str, tuple[Edit, str]] = {
    "target": (lambda p: p.update(target="x86"), "--target x86"),
    "bits": (lambda p: p.update(bits="W4A8"), "W4A8"),
    "no bits": (lambda p: p.update(bits="int8"), "'int8' is not a bit width"),
    "format": (lambda p: p.update(format="other"), "not a plan"),
    "version": (lambda p: p.update(version=99), "not a plan"),
    "no ops": (lambda p: p.pop("ops"), "ops"),
    "ops is a list": (lambda p: p.update(ops=[]), "ops"),
    "unknown operator": (rename_op, "operator 'nobody' is unknown"),
    "missing operator": (lambda p: p["ops"].pop(first(p, "Conv")), "is missing"),
    "wrong type": (lambda p: p["ops"][first(p, "Conv")].update(op_type="Gemm"), "is Conv"),
    "runs": (lambda p: p["ops"][first(p, "Conv")].update(runs="int4"), "int4"),
    "unknown tensor": (lambda p: p["tensors"].update(nothing={"kind": "float"}), "tensor 'nothing' is unknown"),
    "missing tensor": (drop_tensor, "tensor 'image' has no grid"),
    "float tensor": (lambda p: p["tensors"].update(image={"kind": "float"}), "tensor 'image' has no grid"),
    "unsigned": (lambda p: p["tensors"]["image"]["params"].update(signed=False, zero_point=[0]), "signed codes"),
    "per channel activation": (lambda p: p["tensors"]["image"]["params"].update(scale=[0.1] * 3, zero_point=[0] * 3, axis=1), "per-tensor"),
    "zero scale": (lambda p: p["tensors"]["image"]["params"].update(scale=[0.0]), "scale"),
    "negative scale": (lambda p: p["tensors"]["image"]["params"].update(scale=[-1.0]), "scale"),
    "nan scale": (lambda p: p["tensors"]["image"]["params"].update(scale=[float("nan")]), "scale"),
    "text scale": (lambda p: p["tensors"]["image"]["params"].update(scale="0.1"), "scale"),
    "zero point": (lambda p: p["tensors"]["image"]["params"].update(zero_point=[1000]), "zero point"),
    "bits of a grid": (lambda p: p["tensors"]["image"]["params"].update(bits=16), "bits"),
    "moved grid": (shift_movement, "must share the grid"),
    "shared behind a layer": (share_computed, "does more than move data"),
    "integer LayerNorm": (lambda p: p["ops"][first(p, "LayerNormalization")].update(runs="integer"), "LayerNormalization"),
    "no weights": (lambda p: p["ops"][first(p, "Conv")].pop("constants"), "constant inputs [1]"),
    "too few weight scales": (
        lambda p: p["ops"][first(p, "Conv")]["constants"]["1"].update(scale=[0.1], zero_point=[0]),
        "scales along axis",
    ),
    "weight axis": (lambda p: p["ops"][first(p, "Conv")]["constants"]["1"].update(axis=1), "scales along axis"),
    "weight zero point": (lambda p: p["ops"][first(p, "Conv")]["constants"]["1"]["zero_point"].__setitem__(0, 3), "zero points 0"),
    "clamp without its group": (lambda p: p["ops"][first(p, "Relu")].update(runs="float"), "fused into a group"),
    "group without its clamp": (lambda p: p["ops"][first(p, "Conv", writes="codes")].update(writes="fused"), "fused into a group"),
    "cannot write float": (
        lambda p: p["ops"][first(p, "Conv", form="weighted", writes="codes")].update(writes="float"),
        "cannot write float",
    ),
    "convolved columns cannot write float": (
        lambda p: p["ops"][first(p, "Conv", form="column_convolution")].update(writes="float"),
        "which writes codes, the plan says float",
    ),
}


@pytest.mark.parametrize("name", list(EDITS))
def test_plans_that_cannot_be_followed(written: tuple[Path, Path, Record], tmp_path: Path, name: str) -> None:
    edit, text = EDITS[name]
    assert text in str(refusal(written, tmp_path, edit))


def test_a_narrow_plan_that_comes_back_gives_the_same_bytes(narrow: tuple[Path, Path, Record], tmp_path: Path) -> None:
    assert converted(narrow, tmp_path, bits="W6A6") == narrow[1].read_bytes()
    assert first(narrow[2], "Identity", runs="integer")


def test_a_copy_can_be_set_to_float(narrow: tuple[Path, Path, Record], tmp_path: Path) -> None:
    """Which comes to the same: its Q then reads the float numbers of the same DQ."""
    name = first(narrow[2], "Identity", runs="integer")
    model = onnx.load_from_string(converted(narrow, tmp_path, functools.partial(run_in_float, name=name), bits="W6A6"))
    before = onnx.load(narrow[1])
    assert [n.op_type for n in model.graph.node] == [n.op_type for n in before.graph.node]


def narrower(plan: Record) -> None:
    for name, tensor in plan["tensors"].items():
        if tensor["kind"] == "measured" and name.endswith("_entering"):
            tensor["params"].update(bits=4, zero_point=[0])


def test_tensors_may_be_narrower_than_asked(narrow: tuple[Path, Path, Record], tmp_path: Path) -> None:
    graph = onnx.load_from_string(converted(narrow, tmp_path, narrower, bits="W6A6")).graph
    values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    limits = {tuple(int(values[v]) for v in n.input[1:]) for n in graph.node if n.op_type == "Clip" and "_entering" in n.name}
    assert limits == {(-8, 7)}


@pytest.mark.parametrize("suffix", ["_entering", "Mul_output_0"])
def test_what_enters_a_layer_cannot_be_wider_than_asked(suffix: str, narrow: tuple[Path, Path, Record], tmp_path: Path) -> None:
    """Wider activations could saturate beside 8-bit weights, and two 8-bit grids in a row would be merged."""
    tensors: Record = narrow[2]["tensors"]
    name = next(n for n, t in tensors.items() if n.endswith(suffix) and t["kind"] == "measured" and t["params"]["bits"] == 6)
    error = refusal(narrow, tmp_path, lambda plan: plan["tensors"][name]["params"].update(bits=8), bits="W6A6")
    assert f"tensor '{name}' enters a layer and can have 6 bits at most in W6A6, the plan says 8" in str(error)


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": "bridgequant-plan", "version": 1}']
)
def test_files_that_are_no_plan(written: tuple[Path, Path, Record], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        convert(written[0], tmp_path / "out.onnx", options(plan_in=tmp_path / "plan.json"))
    assert str(tmp_path / "plan.json") in caught.value.where and caught.value.hint


def test_a_missing_plan_or_a_folder(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            convert(written[0], tmp_path / "out.onnx", options(plan_in=path))


def test_a_plan_of_another_model(written: tuple[Path, Path, Record], tmp_path: Path, save_hybrid: SaveHybrid) -> None:
    with pytest.raises(UsageError, match="does not fit the model"):
        converted((save_hybrid(opset=13, named=False), written[1], written[2]), tmp_path)


def test_random_damage_never_crashes(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values: list[Any] = [None, -1, 0.5, "text", [], {}, True, [1, 2], "integer", "float"]

    def damage(plan: Record) -> None:
        place: Any = plan
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = list(keys)[int(generator.integers(len(keys)))]
            if not isinstance(place[key], (dict, list)) or not place[key] or generator.random() < 0.2:
                place[key] = values[int(generator.integers(len(values)))]
                return
            place = place[key]

    outcomes = set()
    for _ in range(25):
        try:
            converted(written, tmp_path, damage)
            outcomes.add("converted")
        except (UsageError, VerificationError) as error:
            assert isinstance(error, ConverterError) and error.where
            outcomes.add(type(error).__name__)
    assert "UsageError" in outcomes


# Equalizations


@pytest.mark.parametrize(
    ("equalization", "complaint"),
    [
        ({"nowhere": {"scale": [1.0]}}, "tensor 'nowhere' has no site to equalize"),
        ({"/block/act/Mul_output_0": {"scale": [1.0, 2.0]}}, "has 2 scales for 8 channels"),
        ({"/block/act/Mul_output_0": {"scale": [-1.0] * 8}}, "a scale that is not a positive number"),
        ({"/block/act/Mul_output_0": {"scale": [1.0] * 8, "shift": [0.0] * 8}}, "has a shift, which is not exact there"),
    ],
)
def test_an_equalization_that_does_not_fit_is_refused(
    written: tuple[Path, Path, Record], tmp_path: Path, equalization: Record, complaint: str
) -> None:
    error = refusal(written, tmp_path, lambda plan: plan.update(equalizations=equalization))
    assert complaint in error.what


def test_an_inserted_equalization_needs_entries_for_what_it_adds(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    equalization = {"/block/act/Mul_output_0": {"scale": [2.0] * 8}}
    error = refusal(written, tmp_path, lambda plan: plan.update(equalizations=equalization))
    assert "operator '/block/act/Mul_output_0_scaled_Mul' is missing" in error.what


def scaled_plan(plan: Record, step: float) -> None:
    """One equalization that is inserted, with the grid of the tensor it adds."""
    tensor = "/block/act/Mul_output_0"
    plan["equalizations"] = {tensor: {"scale": [0.25, 4.0] * 4}}
    plan["ops"][f"{tensor}_scaled_Mul"] = {"op_type": "Mul", "runs": "float"}
    grid = {"scale": [step], "zero_point": [0], "bits": 8, "signed": True}
    plan["tensors"][f"{tensor}_scaled"] = {"kind": "measured", "params": grid}


def test_a_plan_with_an_inserted_equalization_is_followed(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    model = onnx.load_from_string(converted(written, tmp_path, lambda plan: scaled_plan(plan, 0.125)))
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    (scales,) = [arrays[n.input[1]] for n in model.graph.node if n.op_type == "QuantizeLinear" and arrays[n.input[1]].size > 1]
    assert scales.tolist() == [0.03125, 0.5] * 4


def test_a_scale_per_channel_that_is_too_small_is_refused(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    error = refusal(written, tmp_path, lambda plan: scaled_plan(plan, 2.0**-59))
    assert "cannot have one scale per channel" in error.what


# Prescribed codes and biases


def codes_of(shape: tuple[int, ...], code: int) -> str:
    return codes_to_text(np.full(shape, code, np.int8))


def test_prescribed_codes_and_biases_are_what_is_stored(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    name = "/classifier/Gemm"

    def edit(plan: Record) -> None:
        plan["ops"][name].update(codes=codes_of((10, 16), 3), bias=[0.0] * 10)

    model = onnx.load_from_string(converted(written, tmp_path, edit))
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    stored = [a for a in arrays.values() if a.shape == (10, 16) and a.dtype == np.int8]
    biases = [a for a in arrays.values() if a.shape == (10,) and a.dtype == np.int32]
    assert len(stored) == 1 and (stored[0] == 3).all()
    assert biases and not any(b.any() for b in biases)  # the scales of biases have zero points, which are int32 too


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codes": codes_of((10, 15), 3)}, "150 codes"),
        ({"codes": "nonsense"}, "do not fit"),
        ({"codes": codes_of((10, 16), -128)}, "outside -127..127"),
        ({"bias": [0.0] * 9}, "10 biases, the plan gives 9"),
    ],
)
def test_prescriptions_that_do_not_fit_are_refused(
    written: tuple[Path, Path, Record], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    error = refusal(written, tmp_path, lambda plan: plan["ops"]["/classifier/Gemm"].update(change))
    assert words in error.what


def test_what_has_no_weights_has_no_codes(written: tuple[Path, Path, Record], tmp_path: Path) -> None:
    error = refusal(written, tmp_path, lambda plan: plan["ops"][first(plan, "Sigmoid", runs="integer")].update(codes=codes_of((1,), 0)))
    assert "no weights" in error.what


def test_a_plan_with_equalizations_and_codes_gives_the_same_model_again(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    convert(save_hybrid(), tmp_path / "out.onnx", options(bits="W4A6", method="q-hyvit"), plan_out=tmp_path / "plan.json")
    convert(save_hybrid(), tmp_path / "again.onnx", options(bits="W4A6", plan_in=tmp_path / "plan.json"))
    one, other = (onnx.load(tmp_path / f"{name}.onnx") for name in ("out", "again"))
    assert one.graph == other.graph


@pytest.mark.parametrize("gate", [(), (1e9, 1.0, 0.0), (1.7, 1.0, 0.5), (1.7, 1.0, -1.0)], ids=str)
def test_an_integer_gelu_needs_a_sound_gate(gate: tuple[float, ...], tmp_path: Path) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 10, 10), 8)
    planned = plan_for(sketch.model(sketch.conv(sketch.add("Gelu", x, name="gelu"), 8)))
    check_plan(planned.plan, planned.model, planned.offers, TARGETS["arm64"], tmp_path)
    ops = {**planned.plan.ops, "gelu": replace(planned.plan.ops["gelu"], coefficients=gate)}
    with pytest.raises(UsageError, match="the gate of operator 'gelu'"):
        check_plan(replace(planned.plan, ops=ops), planned.model, planned.offers, TARGETS["arm64"], tmp_path)
