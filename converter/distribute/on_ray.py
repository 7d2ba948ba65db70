"""Pieces as tasks of a Ray cluster. State and files are put into its object store once, from where each machine takes them once."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from converter.distribute.died import TRIES, died
from converter.errors import UsageError

__all__ = ["as_done_on_ray", "check_address", "check_ray"]

_PIECES_OF_A_PROCESS = 20
"""After which a fresh one takes over, as memory grows."""

_SECONDS_TO_ANSWER = 10.0

_OURS = ("converter", "models", "runtime_tests", "tools")
"""Packages that a worker may need, in the version that is here."""

_LEFT_HERE = ["checkpoints/", "*_test.py", "__pycache__/"]


def check_ray() -> None:
    """Refuse to go on without Ray.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec("ray") is None:
        raise UsageError("Ray is not installed", where="--ray", hint="pip install 'bridgequant[cluster]', or leave --ray out")


def as_done_on_ray(
    work: Callable[[Any, Any], Any], state: Any, pieces: Sequence[Any], address: str, files: Iterable[Path], name: Callable[[Any], str]
) -> Iterator[tuple[Any, Any]]:
    """Work on all pieces, as many at once as the cluster has cores; see :func:`converter.distribute.workers.as_done`."""
    if not pieces:
        return
    check_ray()
    ray = importlib.import_module("ray")
    joined = _joined(ray, address)
    try:
        task = ray.remote(num_cpus=1, max_calls=_PIECES_OF_A_PROCESS, max_retries=TRIES - 1)(_work_there)
        copies = {str(path): (_stamp(path), ray.put(path.read_bytes())) for path in sorted(set(files))}
        shared = ray.put((work, state, copies))
        running = {task.remote(shared, piece): piece for piece in pieces}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            piece = running.pop(done)
            yield piece, _result(ray, done, name(piece))
    finally:
        if joined:
            ray.shutdown()  # ends what is still running for this process


def _joined(ray: Any, address: str) -> bool:
    """Join the cluster, with the packages that are here; false if this process is part of one already."""
    if ray.is_initialized():
        return False
    check_address(address)
    packages = [str(Path(str(sys.modules[name].__file__)).parent) for name in _OURS if name in sys.modules]
    environment = {"py_modules": packages, "excludes": _LEFT_HERE}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _not_joined(address, reason) from error
    return True


def check_address(address: str) -> None:
    """Refuse an address where nobody listens, for which Ray itself would wait for minutes.

    Args:
        address: ``HOST:PORT``, or ``auto``, which Ray looks up.

    Raises:
        UsageError: it is something else, or nobody answers.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"'{address}' is no address of a Ray cluster", where="--ray", hint="give HOST:PORT, or auto")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise _not_joined(address, str(error)) from error


def _not_joined(address: str, reason: str) -> UsageError:
    return UsageError(f"the Ray cluster cannot be joined: {reason}", where=f"--ray {address}", hint="start one, see docs/cluster.md")


def _result(ray: Any, done: Any, piece: str) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:  # the function's own error is inside
        raise error.cause from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
        raise died(piece) from error


def _work_there(shared: tuple[Callable[[Any, Any], Any], Any, dict[str, tuple[tuple[int, int], Any]]], piece: Any) -> Any:
    """Runs on a worker: fetch what is missing, then work."""
    work, state, copies = shared
    for path, (stamp, content) in copies.items():
        if not os.path.exists(path) or _stamp(Path(path)) != stamp:
            _write(Path(path), importlib.import_module("ray").get(content), stamp)
    return work(state, piece)


def _stamp(path: Path) -> tuple[int, int]:
    """Bytes and nanoseconds of the last change, by which a copy is told from another file."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _write(path: Path, content: bytes, stamp: tuple[int, int]) -> None:
    """Write a copy as a whole, with the time of what it is a copy of; several workers of a machine may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.utime(part, ns=(stamp[1], stamp[1]))
    part.replace(path)
