"""Files that a conversion reads and writes: refuse what cannot work before any work is done, and write all or nothing."""

from __future__ import annotations

import contextlib
import difflib
import errno
import glob
import os
import platform
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from converter.errors import ModelError, UsageError
from converter.system.temporary_files import no_temporary_files

__all__ = ["check_input", "check_outputs", "meant_path", "temporary_folder", "write_files"]


_BLOCK = 1 << 20

_OTHER_FORMATS = frozenset([".engine", ".mlmodel", ".mlpackage", ".ort", ".pt", ".pth", ".safetensors", ".tflite", ".trt"])
"""Suffixes of models that programs expect to be what these say."""

_LONGEST_MODEL = (1 << 31) - 1
"""Bytes that protobuf can hold."""


def check_input(path: Path) -> None:
    """Refuse a model file that cannot be read.

    Raises:
        ModelError: it does not exist, is a folder, a pipe or a device, is too large, or may not be read.
    """
    try:
        if path.is_dir():
            raise ModelError("the input is a folder, not an ONNX file", where=str(path), hint="name the .onnx file inside it")
        if not path.exists():
            raise ModelError("the input file does not exist", where=str(path), hint=meant_path(path) or "check the path")
        if _is_special(path):
            raise ModelError("the input is a pipe or a device, not a file", where=str(path), hint="save the model to a file first")
        if path.stat().st_size >= _LONGEST_MODEL:
            hint = "save it again with onnx.save(model, path, save_as_external_data=True)"
            raise ModelError("files over 2 GB are no ONNX; a larger model has its weights in a file beside it", where=str(path), hint=hint)
        if not os.access(path, os.R_OK):
            raise ModelError("the input file cannot be read", where=str(path), hint="check its permissions")
    except OSError as error:
        raise ModelError(f"the input file cannot be read: {error.strerror}", where=str(path), hint="check the path") from None


def meant_path(path: Path) -> str:
    """For a path that does not exist: a question whether another one was meant; empty if nothing there has such a name."""
    try:
        names = os.listdir(path.parent)
    except (OSError, ValueError):
        return ""
    same = [name for name in names if Path(name).suffix == path.suffix]
    stems = {Path(name).stem: name for name in same}  # a suffix that all have makes no names alike
    near = [stems[stem] for stem in difflib.get_close_matches(path.stem, stems, n=1)]
    near = near or difflib.get_close_matches(path.name, set(names) - set(same), n=1)
    return f"did you mean {path.parent / near[0]}?" if near else ""


def check_outputs(outputs: Mapping[str, Path], inputs: Mapping[str, Path]) -> None:
    """Refuse files that cannot be written, and files that would replace one another or what is read.

    Args:
        outputs: files to be written, by what they are called towards the user.
        inputs: files that are read and must stay as they are, in the same way.

    Raises:
        UsageError: names the file.
    """
    seen: dict[str, Path] = dict(inputs)
    for role, path in outputs.items():
        try:
            _check_output(role, path)
            for other, taken in seen.items():
                if _same(path, taken):
                    raise UsageError(f"{other} and {role} are the same file", where=str(path), hint=f"name another file for {role}")
        except OSError as error:
            raise UsageError(f"{role} cannot be written: {error.strerror}", where=str(path), hint="check the path") from None
        seen[role] = path


def _check_output(role: str, path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{role} is a folder", where=str(path), hint="name a file inside it")
    if _is_loop(path):
        raise UsageError(f"{role} is a loop of symbolic links", where=str(path), hint="name another file")
    if role == "OUT" and path.suffix.lower() in _OTHER_FORMATS:
        what = f"the result is a model in ONNX, not in {path.suffix}"
        other = "--ort writes the mobile format beside it" if path.suffix == ".ort" else "turn that into other formats by their tools"
        raise UsageError(what, where=str(path), hint=f"write {path.with_suffix('.onnx')}; {other}")
    folder = path.resolve().parent
    if not folder.is_dir():
        missing = folder if path.parent.is_dir() else path.parent  # as it was typed, but where a link leads elsewhere
        raise UsageError(f"the folder of {role} does not exist", where=str(missing), hint="create it first")
    if _is_special(path):
        return
    if not os.access(folder, os.W_OK):
        raise UsageError(f"the folder of {role} is not writable", where=str(folder), hint="choose another one")


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other) and not _is_special(one)
    return os.path.realpath(one) == os.path.realpath(other)  # which puts up with loops of links, unlike Path.resolve


def _is_loop(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _is_special(path: Path) -> bool:
    """True for a device or a pipe, such as /dev/null: it is written to, never replaced."""
    return path.exists() and not stat.S_ISREG(path.stat().st_mode)


def _temporary(target: Path) -> str:
    """What the names of temporary files for a target begin with, on this machine."""
    return f".{target.name[:180]}.{platform.node()[:30]}"


def _remove_orphans(target: Path) -> None:
    if os.name != "posix":
        return
    for path in target.parent.glob(f"{glob.escape(_temporary(target))}.*.tmp"):
        process = path.name.split(".")[-2]
        if process.isdecimal() and not _is_running(int(process)):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_files(contents: Mapping[Path, bytes | Iterable[bytes]]) -> None:
    """Write temporary files beside all of them and rename these in order, so that each is replaced whole or not at all.

    What is too large to be held at once comes in parts.

    Those that killed processes of this machine left behind are removed.

    Raises:
        UsageError: a folder or the disk does not take one; nothing is replaced and nothing left behind.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            target = path.resolve()
            try:
                if _is_special(target):
                    with open(target, "wb") as file:
                        file.writelines(_parts(data))
                    continue
                # known before it exists: an interruption at any moment leaves nothing behind
                staged[target] = target.with_name(f"{_temporary(target)}.{os.getpid()}.tmp")
                _remove_orphans(target)
                _write_new(staged[target], data, target)
            except OSError as error:
                raise UsageError(
                    f"the file cannot be written: {error.strerror or error}",
                    where=str(path),
                    hint="free some space or choose another folder",
                ) from error
        for target in list(staged):
            try:
                os.replace(staged[target], target)
            except OSError as error:
                raise UsageError(
                    f"the file cannot be replaced: {error.strerror or error}", where=str(target), hint="choose another one"
                ) from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(size: int) -> Iterator[Path]:
    """A folder that is removed in the end, on a disk that has room.

    Args:
        size: bytes that somebody else will want to write there, who would not say what went wrong.

    Raises:
        UsageError: temporary files of that size cannot be written.
    """
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise no_temporary_files(error) from error
    with folder:
        probe = Path(folder.name) / "probe"
        try:
            with open(probe, "xb") as file:
                for start in range(0, size, _BLOCK):
                    file.write(bytes(min(_BLOCK, size - start)))
            probe.unlink()
        except OSError as error:
            raise no_temporary_files(error) from error
        yield Path(folder.name)


def _parts(data: bytes | Iterable[bytes]) -> Iterable[bytes]:
    return [data] if isinstance(data, bytes) else data


def _write_new(temporary: Path, data: bytes | Iterable[bytes], like: Path) -> None:
    """Write a file under its temporary name and flush it to the disk, with the permissions of the one it will replace."""
    temporary.unlink(missing_ok=True)
    with open(temporary, "xb") as file:
        file.writelines(_parts(data))
        file.flush()
        os.fsync(file.fileno())
    if like.exists():
        os.chmod(temporary, stat.S_IMODE(like.stat().st_mode))
