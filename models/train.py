"""Train a reference network on small labelled images: ``python -m models.train NAME --data ZIP --out DIR``.

The recipe is short and plain: AdamW, one-cycle learning rate, label smoothing, flips and shifted crops, images
enlarged to ``--size``. Weight decay acts on weight matrices and kernels only; nothing shapes the range of an
activation or weight, so that quantization meets an ordinary network. The weights of the last epoch are kept: no
epoch is chosen by its test score. A run that is cut off goes on from its last finished epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from models.images import labelled_images, load_uint8
from models.registry import create

__all__ = ["augment", "main", "normalise", "parameter_groups", "top1"]

_SHIFT = 4
_SMOOTHING = 0.1


def normalise(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [N, 3, H, W] to float32 [N, 3, size, size] in -1..1, enlarged bilinearly."""
    scaled = pixels.float().div_(127.5).sub_(1.0)
    return functional.interpolate(scaled, size=(size, size), mode="bilinear", align_corners=False)


def augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip half of the images and shift each by up to 4 pixels, mirrored at the border; uint8 [N, 3, H, W]."""
    count, _, height, width = pixels.shape
    flip = torch.rand(count, generator=generator) < 0.5
    pixels = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
    padded = functional.pad(pixels.float(), (_SHIFT,) * 4, mode="reflect").to(torch.uint8)
    rows = torch.randint(0, 2 * _SHIFT + 1, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * _SHIFT + 1, (count, 1), generator=generator) + torch.arange(width)
    image = torch.arange(count)[:, None, None, None]
    channel = torch.arange(pixels.shape[1])[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for tensors of two or more dimensions that end in ``weight``; none for biases, norms and tables."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (decayed if parameter.ndim >= 2 and name.endswith("weight") else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


@torch.no_grad()
def top1(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, size: int) -> float:
    """Share of images whose highest score is the label, in percent."""
    model.eval()
    hits = 0
    for start in range(0, len(pixels), 250):
        batch = normalise(pixels[start : start + 250], size).contiguous(memory_format=torch.channels_last)
        hits += int((model(batch).argmax(1) == labels[start : start + 250]).sum())
    return 100.0 * hits / len(pixels)


def _read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = load_uint8(labelled_images(path))
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def _train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: tuple[torch.Tensor, torch.Tensor],
    size: int,
    batch: int,
    seed: int,
) -> float:
    pixels, labels = data
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pixels), generator=generator)
    model.train()
    losses = []
    for start in range(0, len(order) - batch + 1, batch):
        picked = order[start : start + batch]
        images = normalise(augment(pixels[picked], generator), size).contiguous(memory_format=torch.channels_last)
        loss = functional.cross_entropy(model(images), labels[picked], label_smoothing=_SMOOTHING)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def _save(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models.train", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", help="network, as in models.registry")
    parser.add_argument("--data", type=Path, required=True, help="zip or folder of training images, CLASS/NAME.jpg")
    parser.add_argument("--test", type=Path, help="test images (default: --data with 'train' replaced by 'test')")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, log and resumable state")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="pixels the images are enlarged to (default 64)")
    parser.add_argument("--batch", type=int, default=64, help="images a step (default 64)")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate (default 0.001)")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    options = parser.parse_args(arguments)
    if options.test is None:
        options.test = options.data.with_name(options.data.name.replace("train", "test"))
    if options.test == options.data:
        parser.error("--test: not given, and --data has no 'train' in its name to replace")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    train, test = _read(options.data), _read(options.test)
    classes = int(train[1].max()) + 1
    model = create(options.name, classes=classes, size=options.size)
    model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(parameter_groups(model, options.weight_decay), lr=options.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=options.lr, total_steps=options.epochs * (len(train[0]) // options.batch), pct_start=0.2
    )
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = {
        "command": f"python -m models.train {options.name} --data {options.data.name} --out {options.out.name} "
        f"--epochs {options.epochs} --size {options.size} --batch {options.batch} --lr {options.lr} "
        f"--weight-decay {options.weight_decay} --seed {options.seed}",
        "classes": classes,
        "torch": torch.__version__.split("+")[0],
    }
    state_path, log_path = options.out / "state.pt", options.out / "log.jsonl"
    first = 0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        if state["recipe"]["command"] != recipe["command"]:
            sys.stderr.write(f"error: {state_path} belongs to another run: {state['recipe']['command']}\n")
            return 2
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"]
    for epoch in range(first, options.epochs):
        start = time.monotonic()
        loss = _train_epoch(model, optimiser, schedule, train, options.size, options.batch, seed=options.seed * 1000 + epoch)
        seconds = time.monotonic() - start
        score = top1(model, *test, options.size)
        row = {"epoch": epoch + 1, "loss": round(loss, 4), "top1": round(score, 2), "seconds": round(seconds, 1)}
        if epoch == 0:
            log_path.write_text("")
        with log_path.open("a") as log:
            log.write(json.dumps(row) + "\n")
        sys.stderr.write(f"{options.name} epoch {epoch + 1}/{options.epochs}: loss {loss:.4f}, top-1 {score:.2f} %, {seconds:.0f} s\n")
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
        _save({**state, "epoch": epoch + 1, "recipe": recipe}, state_path)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    class_names = json.dumps(labelled_images(options.data).classes)
    metadata = {"model": options.name, "size": str(options.size), "class_names": class_names, **{k: str(v) for k, v in recipe.items()}}
    save_file(weights, options.out / "weights.safetensors", metadata)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
