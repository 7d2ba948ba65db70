from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.calibration.preprocess import parse_preprocess
from converter.distribute.workers import Workers
from converter.errors import UsageError
from models import evaluate as evaluate_module
from models.evaluate import exact_setting, main, output_indices
from models.images import LabelledImages, find_images
from models.testing.classifier import evaluate, strongest_channel
from models.testing.pictures import Colour, make_zip

RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (10, 10, 250)
# Sorted, the classes are blue, green, red; the model's outputs are red, green, blue. One of the four is mislabelled.
PICTURES: dict[str, Colour] = {"red/1.png": RED, "green/1.png": GREEN, "blue/1.png": BLUE, "blue/2.png": RED}


@pytest.mark.parametrize("batch", ["batch", 1, 3])
@pytest.mark.parametrize("asked", ["1", "2", "32"])
def test_known_answer_with_any_batch_size(tmp_path: Path, batch: int | str, asked: str) -> None:
    model = strongest_channel(tmp_path / "model.onnx", batch=batch, classes=["red", "green", "blue"])
    report = evaluate(tmp_path, model, make_zip(tmp_path / "data.zip", PICTURES), "--batch", asked)
    assert (report["images"], report["correct"], report["top1"]) == (4, 3, 75.0)


def test_a_model_that_takes_pixels_and_gives_codes(tmp_path: Path) -> None:
    model = onnx.load(strongest_channel(tmp_path / "model.onnx", batch=1, classes=["red", "green", "blue"]))
    graph = model.graph
    graph.node[0].input[0], graph.node[0].output[0] = "numbers", "means"
    graph.node.insert(0, helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("QuantizeLinear", ["means", "scale", "zero"], ["logits"]))
    graph.initializer.extend([numpy_helper.from_array(np.float32(2), "scale"), numpy_helper.from_array(np.int8(-128), "zero")])
    graph.input[0].type.tensor_type.elem_type, graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8, TensorProto.INT8
    codes = {"logits": {"type": "int8", "scale": 2.0, "zero_point": -128}}
    entries = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, {**entries, "bridgequant.output_codes": json.dumps(codes)})
    onnx.save(model, tmp_path / "model.onnx")
    report = evaluate(tmp_path, tmp_path / "model.onnx", make_zip(tmp_path / "data.zip", PICTURES))
    assert (report["images"], report["correct"]) == (4, 3)


def test_result_is_one_line_on_stdout_and_nothing_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = strongest_channel(tmp_path / "model.onnx", classes=["red", "green", "blue"])
    assert main([str(model), "--data", str(make_zip(tmp_path / "data.zip", PICTURES))]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("model.onnx: top-1 75.00 % (3 of 4 in data.zip, unit)")
    assert len(printed.out.splitlines()) == 1
    assert printed.err == ""


def test_folder_and_zip_agree(tmp_path: Path) -> None:
    model = strongest_channel(tmp_path / "model.onnx", classes=["red", "green", "blue"])
    with zipfile.ZipFile(make_zip(tmp_path / "data.zip", PICTURES)) as archive:
        archive.extractall(tmp_path / "folder")
    assert evaluate(tmp_path, model, tmp_path / "folder")["correct"] == 3


def test_names_with_an_index_need_no_class_names(tmp_path: Path) -> None:
    pictures = {"0000_n00000001_red.png": RED, "0002_n00000003_blue.png": BLUE, "0001_n00000002_green.png": RED}
    report = evaluate(tmp_path, strongest_channel(tmp_path / "model.onnx"), make_zip(tmp_path / "data.zip", pictures))
    assert (report["images"], report["correct"]) == (3, 2)


def test_preprocessing_of_the_command_line_wins(tmp_path: Path) -> None:
    """A mean beyond white in red and green makes blue the strongest channel of every picture, two of which are in its folder."""
    model = strongest_channel(tmp_path / "model.onnx", classes=["red", "green", "blue"])
    report = evaluate(tmp_path, model, make_zip(tmp_path / "data.zip", PICTURES), "--preprocess", "mean=2,2,0;std=1")
    assert (report["correct"], report["preprocess"]) == (2, "mean=2.0,2.0,0.0;std=1.0")


def test_limit_takes_a_part(tmp_path: Path) -> None:
    model = strongest_channel(tmp_path / "model.onnx", classes=["red", "green", "blue"])
    assert evaluate(tmp_path, model, make_zip(tmp_path / "data.zip", PICTURES), "--limit", "2")["images"] == 2


def test_open_size_is_taken_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = strongest_channel(tmp_path / "model.onnx", size="side", classes=["red", "green", "blue"])
    data = make_zip(tmp_path / "data.zip", PICTURES)
    assert evaluate(tmp_path, model, data, "--size", "5")["correct"] == 3
    assert main([str(model), "--data", str(data)]) == 2
    assert "--size" in capsys.readouterr().err


@pytest.mark.parametrize(("shard", "rows"), [(1, 1), (2, 1), (3, 2), (512, 32)])
def test_shards_of_any_size_add_up(shard: int, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "_SHARD", shard)
    model = strongest_channel(tmp_path / "model.onnx", classes=["red", "green", "blue"])
    data = find_images(make_zip(tmp_path / "data.zip", PICTURES))
    at = evaluate_module._Evaluation(model, data, parse_preprocess("unit"), rows, False, 1, None)
    done: list[int] = []
    found = evaluate_module._score_in_shards(at, Workers(), rows, done.append)
    assert (found.images, found.correct) == (4, 3)
    assert sum(done) == 4 and len(done) == -(-4 // (-(-shard // rows) * rows))


@pytest.mark.slow
def test_processes_count_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "_SHARD", 2)
    model = strongest_channel(tmp_path / "model.onnx", batch=1, classes=["red", "green", "blue"])
    report = evaluate(tmp_path, model, make_zip(tmp_path / "data.zip", PICTURES), "--jobs", "2")
    assert (report["images"], report["correct"], report["top1"]) == (4, 3, 75.0)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["absent.onnx", "--data", "data.zip"], 2, "absent.onnx"),
        (["broken.onnx", "--data", "data.zip"], 3, "cannot be loaded"),
        (["model.onnx", "--data", "absent.zip"], 2, "absent.zip"),
        (["model.onnx"], 2, "--data"),
        (["model.onnx", "--data", "data.zip", "--batch", "0"], 2, "--batch must be at least 1"),
        (["model.onnx", "--data", "data.zip", "--preprocess", "imagnet"], 2, "imagenet"),
        (["bare.onnx", "--data", "data.zip"], 2, "--preprocess"),
        (["model.onnx", "--data", "two.zip"], 2, "2 classes (cat, dog, ...) and the model 3 outputs"),
        (["model.onnx", "--data", "damaged.zip"], 4, "damaged.zip: b/2.png"),
    ],
)
def test_bad_input_ends_in_three_lines(
    arguments: list[str],
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    strongest_channel(Path("model.onnx"))
    strongest_channel(Path("bare.onnx"), preprocess=None)
    Path("broken.onnx").write_bytes(b"\x08\x08 nothing")
    make_zip(Path("data.zip"), PICTURES)
    make_zip(Path("two.zip"), {"cat/1.png": RED, "dog/1.png": RED})
    make_zip(Path("damaged.zip"), {"a/1.png": RED, "b/1.png": GREEN, "c/1.png": BLUE})
    with zipfile.ZipFile("damaged.zip", "a") as archive:
        archive.writestr("b/2.png", b"not a picture")
    assert main(arguments) == code
    printed = capfd.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 3
    assert expected in printed.err


def data_of(*classes: str) -> LabelledImages:
    return LabelledImages(Path("data"), tuple(f"{name}/1.png" for name in classes), tuple(range(len(classes))), classes)


def test_case_1_classes_are_found_by_name() -> None:
    assert output_indices(data_of("cat", "eel"), 3, ("eel", "dog", "cat")).tolist() == [2, 0]


def test_case_2_numbers_are_outputs_in_numeric_order() -> None:
    assert output_indices(data_of("0", "1", "10", "2"), 11).tolist() == [0, 1, 10, 2]
    assert output_indices(data_of("0", "1", "10", "2", *map(str, range(3, 10))), 11)[2] == 10


def test_case_3_as_many_classes_as_outputs_are_in_sorted_order() -> None:
    assert output_indices(data_of("cat", "dog"), 2).tolist() == [0, 1]
    assert output_indices(data_of("1", "10", *map(str, range(2, 10))), 10).tolist() == [0, 9, *range(1, 9)]


def test_case_4_wordnet_numbers_are_in_the_order_of_imagenet() -> None:
    assert output_indices(data_of("n01440764", "n01484850", "n15075141"), 1000).tolist() == [0, 2, 999]


@pytest.mark.parametrize(("classes", "outputs"), [(("cat", "dog"), 3), (("0", "7"), 7), (("n01440764", "n00000000"), 1000)])
def test_classes_that_match_no_case_are_refused(classes: tuple[str, ...], outputs: int) -> None:
    with pytest.raises(UsageError, match="cannot be matched"):
        output_indices(data_of(*classes), outputs)


def quantized(activation: type[np.signedinteger] | type[np.unsignedinteger]) -> tuple[onnx.ModelProto, np.ndarray]:
    """A 1 x 1 convolution of 256 channels between Q and DQ, with weights that saturate 16 bits, and an input for it."""
    generator = np.random.default_rng(0)
    middle = 0 if activation is np.int8 else 128
    constants = {
        "scale": np.float32(0.02),
        "zero": activation(middle),
        "weight": generator.integers(-127, 128, (8, 256, 1, 1)).astype(np.int8),
        "weight_scale": np.float32(0.01),
        "output_scale": np.float32(1.0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "scale", "zero"], ["x_dq"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale"], ["weight_dq"]),
        helper.make_node("Conv", ["x_dq", "weight_dq"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "output_scale", "zero"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "output_scale", "zero"], ["y_dq"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256, 4, 4])],
        [helper.make_tensor_value_info("y_dq", TensorProto.FLOAT, [1, 8, 4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, (1.5 * generator.standard_normal((1, 256, 4, 4))).astype(np.float32)


@pytest.mark.parametrize(("activation", "setting"), [(np.int8, "session.qdqisint8allowed"), (np.uint8, "session.x64quantprecision")])
def test_exact_kernels_agree_with_the_unfused_graph(activation: type[np.signedinteger] | type[np.unsignedinteger], setting: str) -> None:
    model, x = quantized(activation)
    assert exact_setting(model) == setting
    plain, exact = onnxruntime.SessionOptions(), onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    exact.add_session_config_entry(setting, "1")
    expected, actual = (
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for options in (plain, exact)
    )
    assert np.abs(expected).max() > 20
    assert np.array_equal(actual, expected)


def test_float_models_run_with_exact_kernels_too(tmp_path: Path) -> None:
    model = strongest_channel(tmp_path / "model.onnx", classes=["red", "green", "blue"])
    report = evaluate(tmp_path, model, make_zip(tmp_path / "data.zip", PICTURES), "--exact")
    assert (report["correct"], report["exact"]) == (3, True)


def test_every_image_of_the_imagenet_sample_finds_its_output(shared_data: Path) -> None:
    data = find_images(shared_data / "imagenet_sample.zip")
    indices = output_indices(data, 1000)
    assert [int(entry.split("_")[0]) for entry in data.entries] == [indices[label] for label in data.labels]
