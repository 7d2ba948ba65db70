from __future__ import annotations

import errno
import os
import platform
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from converter.errors import ModelError, UsageError
from converter.load import files as paths
from converter.load.files import check_input, check_outputs, meant_path, temporary_folder, write_files


def refusal(outputs: dict[str, Path], inputs: dict[str, Path] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        check_outputs(outputs, inputs or {})
    assert caught.value.where and caught.value.hint
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_input(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    check_input(tmp_path / "a")
    for path, word in ((tmp_path, "folder"), (tmp_path / "b", "does not exist"), (tmp_path / ("x" * 300), "cannot be read")):
        with pytest.raises(ModelError, match=word):
            check_input(path)


def test_a_pipe_or_a_device_is_no_model(tmp_path: Path) -> None:
    """Reading one may take for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ModelError, match="pipe or a device") as caught:
            check_input(path)
        assert "save the model to a file" in caught.value.hint


def test_a_temporary_folder_is_empty_and_removed() -> None:
    with temporary_folder(3_000_000) as folder:
        assert folder.is_dir() and names(folder) == []
        (folder / "a").write_bytes(b"a")
    assert not folder.exists()


@pytest.mark.parametrize("missing", ["folder", "space"])
def test_temporary_files_that_cannot_be_written_are_nobody_elses_fault(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if missing == "folder":
        monkeypatch.setattr(tempfile, "mkdtemp", fail)
    else:
        monkeypatch.setattr(paths, "bytes", fail, raising=False)  # what is to be written, and is not
    with pytest.raises(UsageError, match="No space left") as caught, temporary_folder(10):
        pass
    assert "TMPDIR" in caught.value.hint


def test_a_loop_of_links_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "OUT is a loop" in refusal({"OUT": tmp_path / "loop"})
    check_outputs({"OUT": tmp_path / "a"}, {"--calib": tmp_path / "loop"})  # whoever reads it will say so


def test_what_was_meant_is_a_name_like_it_and_not_one_that_shares_its_suffix(tmp_path: Path) -> None:
    for name in ("model.onnx", "page.onnx", "images"):
        (tmp_path / name).touch()
    for typed, meant in (("modle.onnx", "model.onnx"), ("model.onx", "model.onnx"), ("model", "model.onnx"), ("image", "images")):
        assert meant_path(tmp_path / typed) == f"did you mean {tmp_path / meant}?", typed
    assert meant_path(tmp_path / "absent.onnx") == meant_path(tmp_path / "missing" / "model.onnx") == ""


def test_a_missing_folder_is_named_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "at: out\n" in refusal({"OUT": Path("out/a.onnx")})
    Path("a.onnx").symlink_to("elsewhere/a.onnx")
    assert f"at: {tmp_path / 'elsewhere'}\n" in refusal({"OUT": Path("a.onnx")})


def test_output_in_a_missing_folder_or_a_folder_itself(tmp_path: Path) -> None:
    assert "does not exist" in refusal({"OUT": tmp_path / "missing" / "a"})
    assert "is a folder" in refusal({"OUT": tmp_path})
    assert "cannot be written" in refusal({"OUT": tmp_path / ("x" * 300)})
    (tmp_path / "file").write_bytes(b"")
    refusal({"OUT": tmp_path / "file" / "a"})


def test_output_folder_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # permission bits do not bind root
    assert "--json is not writable" in refusal({"--json": tmp_path / "a"})


@pytest.mark.parametrize("link", ["same", "symlink", "hardlink", "dotted"])
@pytest.mark.parametrize("other_exists", [True, False])
def test_files_that_are_the_same(tmp_path: Path, link: str, other_exists: bool) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    if other_exists:
        one.write_bytes(b"1")
    if link == "hardlink":
        one.write_bytes(b"1")
        two.hardlink_to(one)
    elif link == "symlink":
        two.symlink_to(one)
    else:
        two = one if link == "same" else tmp_path / "." / ".." / tmp_path.name / "one"
    assert "IN and OUT are the same file" in refusal({"OUT": two}, {"IN": one})
    assert "--json" in refusal({"OUT": one, "--json": two})


def test_different_files_and_devices_are_fine(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    check_outputs({"OUT": tmp_path / "out", "--json": Path(os.devnull), "--plan-out": Path(os.devnull)}, {"IN": tmp_path / "in"})


def test_writing_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    write_files({tmp_path / "a": b"new", tmp_path / "b": b"more"})
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == b"new" and (tmp_path / "b").read_bytes() == b"more"


@pytest.mark.skipif(os.name != "posix", reason="whether a process runs is asked in the way of POSIX")
def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path) -> None:
    """The process is one that has ended; files of running ones and of other targets stay."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f".{name}.{platform.node()[:30]}.{pid}.tmp" for name in ("a", "b") for pid in (ended.pid, os.getpid())]
    for name in names[:1] + names[2:]:
        (tmp_path / name).write_bytes(b"half")
    parent = tmp_path / f".a.{platform.node()[:30]}.{os.getppid()}.tmp"
    parent.write_bytes(b"half")
    write_files({tmp_path / "a": b"new"})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a", parent.name, *names[2:]])


def test_permissions_are_those_of_the_old_file_or_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"")
    os.chmod(tmp_path / "old", 0o640)
    before = os.umask(0o027)
    try:
        write_files({tmp_path / "old": b"x", tmp_path / "new": b"x"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_files({tmp_path / "link": b"x"})
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"x"


def test_a_device_is_written_to_not_replaced() -> None:
    write_files({Path(os.devnull): b"x"})
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_longest_file_name(tmp_path: Path) -> None:
    write_files({tmp_path / ("x" * 255): b"x"})
    assert names(tmp_path) == ["x" * 255]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failures_leave_old_files_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(UsageError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write_files({tmp_path / "a": b"new", tmp_path / "b": b"more"})
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"
    if isinstance(error, OSError):
        assert "No space left" in str(caught.value) and str(tmp_path) in str(caught.value)


def test_no_file_is_replaced_before_all_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    write_new = paths._write_new

    def second_fails(temporary: Path, data: bytes, like: Path) -> None:
        if data == b"more":
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        write_new(temporary, data, like)

    monkeypatch.setattr(paths, "_write_new", second_fails)
    with pytest.raises(UsageError, match="quota"):
        write_files({tmp_path / "a": b"new", tmp_path / "b": b"more"})
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"
