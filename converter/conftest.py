"""Fixtures of the converter's tests."""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from converter import pipeline
from converter.cli.main import main
from converter.runtime.latency import latency_ratio
from converter.testing.models import Outcome, Run, SaveHybrid, WriteImages, hybrid_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: with two workers none then waits at the end for the other's slow file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="package")
def one_torch_thread() -> Iterator[None]:
    """Run PyTorch on one core: threads that wait for each other on a busy machine are slower than none."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def heeded_interruptions() -> Iterator[None]:
    """Take Ctrl-C even where pytest was started in the background of a shell, which ignores it, and so would all processes of a test.

    Anew for each test, as libraries change what is done at a signal.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def save_hybrid(tmp_path_factory: pytest.TempPathFactory) -> SaveHybrid:
    """A function that saves :func:`hybrid_model` with the given switches, once each, and returns the path. Do not write to it."""
    folder = tmp_path_factory.mktemp("hybrid")
    known: dict[str, Path] = {}

    def save(**switches: Any) -> Path:
        key = "_".join(f"{name}-{value}" for name, value in sorted(switches.items())) or "plain"
        if key not in known:
            known[key] = folder / f"{key}.onnx"
            known[key].write_bytes(hybrid_model(**switches).SerializeToString(deterministic=True))
        return known[key]

    return save


@pytest.fixture(scope="session")
def write_images() -> WriteImages:
    """A function that fills a folder with small pictures of different sizes, in subfolders, and returns it."""

    def write(folder: Path, count: int = 6) -> Path:
        generator = np.random.default_rng(0)
        for index in range(count):
            file = folder / f"class{index % 2}" / f"{index:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (30 + index, 40, 3), np.uint8)).save(file)
        return folder

    return write


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that calls the command in this process."""

    def call(*words: object) -> Outcome:
        code = main([str(w) for w in words])
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call


@pytest.fixture
def source(save_hybrid: SaveHybrid) -> Path:
    return save_hybrid()


@pytest.fixture
def few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let conversions compare latencies once instead of for seconds."""
    monkeypatch.setattr(pipeline, "latency_ratio", functools.partial(latency_ratio, seconds=0.0))
