"""Fixtures of the models' tests."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Run PyTorch on one core: on a busy machine threads that wait for each other make small networks ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the image collections; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("BRIDGEQUANT_DATA", Path(__file__).parents[1] / "../shared/data"))
    if not folder.is_dir():
        pytest.skip("no image collections: set BRIDGEQUANT_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def noise_zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training zip of 256 and a test zip of 20 random 32 x 32 pictures in two classes; the path of the first."""
    folder = tmp_path_factory.mktemp("noise")
    generator = np.random.default_rng(0)
    for part, count in (("train", 256), ("test", 20)):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for index in range(count):
                stream = io.BytesIO()
                Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(stream, "PNG")
                archive.writestr(f"{'cat' if index % 2 else 'dog'}/{index:04}.png", stream.getvalue())
    return folder / "train.zip"
