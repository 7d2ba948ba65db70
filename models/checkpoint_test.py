from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from converter.errors import UsageError
from models.checkpoint import CheckpointError, load_weights, read_weights


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return network().state_dict()


def test_safetensors_with_metadata(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state(), path, {"model": "tiny", "size": "64"})
    weights = read_weights(path)
    assert weights.metadata == {"model": "tiny", "size": "64"}
    model = network()
    load_weights(model, weights, path)
    assert all(torch.equal(tensor, state()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("suffix", ["pth", "pt", "pth.tar"])
@pytest.mark.parametrize("nesting", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_pytorch_files_are_unwrapped(tmp_path: Path, suffix: str, nesting: str | None, prefix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    tensors = {prefix + name: tensor for name, tensor in state().items()}
    torch.save({nesting: tensors, "epoch": 3} if nesting else tensors, path)
    model = network()
    load_weights(model, read_weights(path), path)
    assert torch.equal(model.state_dict()["2.weight"], state()["2.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_tensors_become_fp32_and_integers_stay(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "weights.safetensors"
    stored = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state().items()}
    save_file(stored, path)
    tensors = read_weights(path).tensors
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {name: tensor.dtype for name, tensor in state().items()}
    assert torch.equal(tensors["0.weight"], stored["0.weight"].float())


def test_mismatch_lists_a_few_of_each_kind_with_counts(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    tensors = state()
    for name in ("1.weight", "1.bias", "1.running_mean", "1.running_var"):
        del tensors[name]
    tensors["head.weight"] = torch.zeros(1)
    tensors["2.weight"] = torch.zeros(10, 4)
    torch.save(tensors, path)
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, read_weights(path), path)
    assert caught.value.what == (
        "the weights do not fit the network: 4 missing (1.weight, 1.bias, 1.running_mean, ...); 1 unexpected (head.weight); "
        "1 of another shape (2.weight is [10, 4] in the file, [2, 4] in the network)"
    )
    assert len(str(caught.value).splitlines()) == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_step_counters_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({name: tensor for name, tensor in state().items() if "num_batches" not in name}, path)
    load_weights(network(), read_weights(path), path)


class Marker:
    """Something whose unpickling would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("never"),)  # type: ignore[return-value]


def test_pickled_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state(), "extra": Marker()}, "weights.pth")
    with pytest.raises(CheckpointError, match="more than tensors"):
        read_weights(Path("weights.pth"))
    assert not Path("never").exists()


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth"])
def test_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


def test_other_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "loss": 0.5}, path)
    with pytest.raises(CheckpointError, match="no tensor at epoch, loss"):
        read_weights(path)


def test_missing_file_and_unknown_suffix_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such checkpoint"):
        read_weights(tmp_path / "weights.pth")
    (tmp_path / "weights.bin").touch()
    with pytest.raises(UsageError, match=r"'\.bin'"):
        read_weights(tmp_path / "weights.bin")
