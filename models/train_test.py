from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import models.train
from models.train import augment, main, normalise, parameter_groups, top1


def pictures(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_normalised_pixels_span_minus_one_to_one() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert torch.equal(normalise(ends, 8), torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 8, 8))


def test_augmented_picture_is_one_of_the_mirrored_shifts_of_itself() -> None:
    original = pictures(40)
    augmented = augment(original, torch.Generator().manual_seed(1))
    assert augmented.dtype == torch.uint8
    found = set()
    for before, after in zip(original, augmented, strict=True):
        padded = {
            flipped: nn.functional.pad((before.flip(2) if flipped else before).float(), (4,) * 4, mode="reflect") for flipped in (0, 1)
        }
        matches = [
            (flipped, row, column)
            for flipped, canvas in padded.items()
            for row in range(9)
            for column in range(9)
            if torch.equal(canvas[:, row : row + 16, column : column + 16], after.float())
        ]
        assert len(matches) == 1
        found.add(matches[0])
    assert {flipped for flipped, _, _ in found} == {0, 1}
    assert len({shift[1:] for shift in found}) > 20


def test_augmentation_depends_on_the_generator_alone() -> None:
    first, again, other = (augment(pictures(8), torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_weight_decay_acts_on_matrices_and_kernels_only() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model.register_parameter("table", nn.Parameter(torch.zeros(2, 2)))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = ([names[id(parameter)] for parameter in group["params"]] for group in parameter_groups(model, 0.1))
    assert decayed == ["0.weight", "2.weight"]
    assert sorted(decayed + free) == sorted(names.values())
    assert [group["weight_decay"] for group in parameter_groups(model, 0.1)] == [0.1, 0.0]


def test_top1_counts_right_answers_in_evaluation_mode() -> None:
    class Brightest(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return image.mean(dim=(2, 3))

    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    for index, channel in enumerate((0, 1, 2, 2)):
        images[index, channel] = 200
    assert top1(Brightest().train(), images, torch.tensor([0, 1, 2, 0]), 8) == 75.0


def run(out: Path, data: Path) -> int:
    return main(["mobilevit_xxs", "--data", str(data), "--out", str(out), "--epochs", "2", "--size", "32", "--threads", "1"])


def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, noise_zips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole" / "run", tmp_path / "parts" / "run"
    assert run(whole, noise_zips) == 0

    save = models.train._save

    def save_and_stop(state: dict[str, object], path: Path) -> None:
        save(state, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(models.train, "_save", save_and_stop)
        run(parts, noise_zips)
    assert not (parts / "weights.safetensors").exists()
    capsys.readouterr()
    assert run(parts, noise_zips) == 0
    assert "epoch 1/2" not in capsys.readouterr().err
    # The order of the metadata in a safetensors file changes from run to run, so the tensors are compared.
    expected, resumed = load_file(whole / "weights.safetensors"), load_file(parts / "weights.safetensors")
    assert list(expected) == list(resumed)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())

    rows = [json.loads(line) for line in (parts / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    with safe_open(whole / "weights.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["model"], metadata["size"], metadata["classes"]) == ("mobilevit_xxs", "32", "2")
    assert json.loads(metadata["class_names"]) == ["cat", "dog"]

    other = ["mobilevit_xxs", "--data", str(noise_zips), "--out", str(parts), "--epochs", "3", "--size", "32", "--threads", "1"]
    assert main(other) == 2
    assert "belongs to another run" in capsys.readouterr().err
