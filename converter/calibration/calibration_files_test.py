"""Folders as they are found, and files that are something else."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from converter.calibration import calibration_files
from converter.calibration.calibration_files import check_calibration_path, files_below
from converter.calibration.testing.sample_files import NCHW, load, refused, write_images
from converter.errors import CalibrationError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "b.png", "deep/c.png")
    touch(tmp_path / "set", "a.png")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert sorted(files_below(tmp_path / "set")) == ["a.png", "link/b.png", "link/deep/c.png"]
    (tmp_path / "alias").symlink_to(tmp_path / "set", target_is_directory=True)
    assert sorted(files_below(tmp_path / "alias")) == ["a.png", "link/b.png", "link/deep/c.png"]


def test_links_in_circles_end_and_no_file_counts_twice(tmp_path: Path) -> None:
    touch(tmp_path, "z/a.png", "z/y/b.png")
    (tmp_path / "a").symlink_to("z", target_is_directory=True)
    (tmp_path / "z" / "up").symlink_to("..", target_is_directory=True)
    (tmp_path / "z" / "y" / "self").symlink_to(".", target_is_directory=True)
    (tmp_path / "loop").symlink_to("loop")
    assert sorted(files_below(tmp_path)) == ["loop", "z/a.png", "z/y/b.png"]


def test_hidden_folders_are_not_entered(tmp_path: Path) -> None:
    touch(tmp_path, ".trash/a.png", "b/.c/d.png", "b/e.png")
    assert files_below(tmp_path) == ["b/e.png"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, 3, classes=2)
    scandir = os.scandir

    def guarded(path: str) -> object:
        if Path(path).name == "class1":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    error = refused(tmp_path, NCHW)
    assert isinstance(error, CalibrationError)
    assert error.where == f"{tmp_path / 'class1'}: Permission denied"


def test_entries_that_are_no_files_are_skipped_and_counted(tmp_path: Path) -> None:
    write_images(tmp_path, 4)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    samples = load(tmp_path, NCHW, count=10)
    assert (len(samples.calibration) + len(samples.held_aside), samples.skipped) == (4, 3)


def test_only_entries_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert refused(tmp_path, NCHW).where == f"{tmp_path}: pipe.png: it is no regular file"


def test_a_file_too_large_for_an_image_is_not_read(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(1 << 40)
    assert load(tmp_path, NCHW, count=10).skipped == 1


@pytest.mark.parametrize("name", ["pipe", "pipe.npy", "pipe.npz", "pipe.zip"])
def test_pipes_are_refused_without_waiting(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    for path in (tmp_path / name, tmp_path / "link.npz"):
        if not path.exists():
            path.symlink_to(name)
        error = refused(path, NCHW)
        assert isinstance(error, CalibrationError)
        assert (error.what, error.where) == ("the calibration data are neither a file nor a folder", str(path))


def test_devices_are_refused() -> None:
    assert "neither a file nor a folder" in refused(Path(os.devnull), NCHW).what


@pytest.mark.parametrize("name", ["absent", "file/below", "dangling", "loop", "n" * 300, "nul\0"])
def test_paths_that_lead_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CalibrationError) as caught:
        check_calibration_path(tmp_path / name)
    assert str(tmp_path / name) in caught.value.where and len(str(caught.value).splitlines()) == 3


def test_whatever_is_raised_while_reading_names_the_file() -> None:
    for raised in (KeyError("x"), RecursionError(), MemoryError(), Image.DecompressionBombError("bomb")):
        with pytest.raises(CalibrationError) as caught, calibration_files.reading("no", Path("a.npz"), hint="h"):
            raise raised
        assert caught.value.where.startswith("a.npz: ") and not caught.value.where.endswith(": ")
    with pytest.raises(CalibrationError) as kept, calibration_files.reading("no", Path("a.npz"), hint="h"):
        raise CalibrationError("as it is")
    assert kept.value.what == "as it is"
    with pytest.raises(KeyboardInterrupt), calibration_files.reading("no", Path("a.npz"), hint="h"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(("name", "entry"), [("a.zip", "a.png"), ("a.npz", "x.npy")])
def test_bombs_are_not_unpacked(tmp_path: Path, name: str, entry: str) -> None:
    """A hundred megabytes of zeros in a hundred kilobytes."""
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, bytes(100_000_000))
    assert "unpacks to 1.0e+08 bytes" in str(refused(tmp_path / name, NCHW))


def test_pictures_of_too_many_pixels_are_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "a.png")
    assert "9000 by 9000 pixels" in str(refused(tmp_path, NCHW))
