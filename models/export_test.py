from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import models.export
from models.export import INPUT, OUTPUT, TOLERANCE, Network, build, export_model, main, relative_error
from models.registry import create

SMALL = "mobile_former_26m"


def metadata(content: bytes) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}


def run(content: bytes, image: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = session.run([OUTPUT], {INPUT: image.numpy()})[0]
    return logits


def trained_checkpoint(path: Path) -> nn.Module:
    """A file like those of models.train, with random weights; returns the network that they belong to."""
    torch.manual_seed(7)
    model = create(SMALL, classes=3, size=64)
    about = {"model": SMALL, "size": "64", "classes": "3", "class_names": json.dumps(["cat", "dog", "eel"])}
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path, about)
    return model.eval()


@pytest.mark.parametrize("name", ["mobilevit_xxs", "mobilevitv2_050", SMALL, "efficientformer_l1", "efficientformerv2_s0"])
def test_exported_network_computes_the_same(name: str) -> None:
    network = build(name, size=64, classes=10, seed=2)
    content = export_model(network)
    onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(11))
    with torch.no_grad():
        expected = network.module(image).numpy()
    assert relative_error(run(content, image), expected) < TOLERANCE
    opset = {entry.domain: entry.version for entry in onnx.load_model_from_string(content).opset_import}
    assert opset == {"": 17}
    assert metadata(content) == {"bridgequant.preprocess": "unit;resize=crop" if "mobilevit" in name else "imagenet;resize=crop"}


def test_dynamic_batch_leaves_only_the_batch_open() -> None:
    content = export_model(build(SMALL, size=64, classes=10), dynamic_batch=True)
    shape = onnx.load_model_from_string(content).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 3, 64, 64]
    assert run(content, torch.zeros(5, 3, 64, 64)).shape == (5, 10)


def test_dynamo_export_holds_no_path_of_this_machine() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    content = export_model(Network(module.eval(), 64, "unit"), exporter="dynamo", dynamic_batch=True)
    assert b"site-packages" not in content
    assert str(Path(__file__).parent).encode() not in content
    assert run(content, torch.zeros(3, 3, 64, 64)).shape == (3, 10)


@pytest.mark.slow
def test_same_command_gives_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "c.onnx"]
    for path, seed, threads in zip(paths, "001", (1, 2, 1), strict=True):
        torch.set_num_threads(threads)
        assert main([SMALL, str(path), "--size", "64", "--classes", "10", "--seed", seed]) == 0
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "c.onnx"]
    assert capsys.readouterr().err == ""


def test_checkpoint_gives_weights_size_classes_and_preprocessing(tmp_path: Path) -> None:
    model = trained_checkpoint(tmp_path / "weights.safetensors")
    network = build(SMALL, checkpoint=tmp_path / "weights.safetensors")
    assert network.size == 64
    content = export_model(network)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = model(image).numpy()
    assert expected.shape == (1, 3)
    assert relative_error(run(content, image), expected) < TOLERANCE
    assert metadata(content) == {"bridgequant.preprocess": "symmetric;resize=stretch", "bridgequant.classes": '["cat", "dog", "eel"]'}


def test_preprocessing_can_be_stated() -> None:
    content = export_model(build(SMALL, size=64, classes=10, preprocess="mean=0.5;std=0.25;resize=pad"))
    assert metadata(content) == {"bridgequant.preprocess": "mean=0.5;std=0.25;resize=pad"}


def test_failed_check_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(models.export, "TOLERANCE", 0.0)
    (tmp_path / "out.onnx").write_text("old")
    assert main([SMALL, str(tmp_path / "out.onnx"), "--size", "64", "--classes", "10"]) == 5
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.onnx", "old")]
    assert "nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["mobilevit_xxl", "out.onnx"], 2, "mobilevit_xxs"),
        ([SMALL], 2, "OUT.onnx"),
        ([SMALL, "absent/out.onnx"], 2, "absent"),
        ([SMALL, "out.onnx", "--opset", "12"], 2, "14 to 20"),
        ([SMALL, "out.onnx", "--size", "8"], 2, "32 pixels"),
        ([SMALL, "out.onnx", "--classes", "many"], 2, "many"),
        ([SMALL, "out.onnx", "--preprocess", "imagnet"], 2, "imagenet"),
        ([SMALL, "out.onnx", "--checkpoint", "absent.pth"], 2, "absent.pth"),
        (["mobile_former_52m", "out.onnx", "--checkpoint", "weights.safetensors"], 3, f"those of {SMALL}"),
        ([SMALL, "out.onnx", "--checkpoint", "weights.safetensors", "--classes", "9"], 3, "classifier.weight is [3, 1024] in the file"),
        (["efficientformerv2_s0", "out.onnx", "--size", "40"], 3, "40 pixels"),
    ],
)
def test_bad_input_ends_in_three_lines(
    arguments: list[str], code: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    trained_checkpoint(Path("weights.safetensors"))
    assert main(arguments) == code
    printed = capfd.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 3
    assert expected in printed.err
    assert not Path("out.onnx").exists()


def test_relative_error() -> None:
    expected = np.array([[1.0, -4.0]], np.float32)
    assert relative_error(expected + np.float32(0.5), expected) == pytest.approx(0.125)
    assert relative_error(expected[0], expected) == float("inf")
    assert relative_error(np.full_like(expected, np.nan), expected) == float("inf")
