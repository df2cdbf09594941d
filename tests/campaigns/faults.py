"""Faults at file operations of a command; nothing in the product knows of them."""

import builtins
import errno
import io
import os
import resource
import signal
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

Kind = Literal["kill", "term", "int", "full", "count", "limit"]
_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Fault(NamedTuple):
    """What happens at one file operation of many."""

    kind: Kind  # a signal before the operation; `full`: no space from there on
    at: int  # number of the operation, from 0; of `limit`, bytes of the largest file
    folder: str  # operations on files under it count
    report: str = ""  # file for the number of operations, of `count`


def install(fault: Fault) -> None:
    """Puts the fault into this process: replace, fsync, mkdir, unlink, open to write."""
    if fault.kind == "limit":
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, hard))
        return
    done = 0

    def before(path: object, *, needs_space: bool = True) -> None:
        nonlocal done
        if not isinstance(path, int) and not str(path).startswith(fault.folder):
            return
        number, done = done, done + 1
        if fault.kind == "count":
            with _open(fault.report, "w") as file:
                file.write(str(done))
        elif fault.kind == "full":
            if number >= fault.at and needs_space:
                shown = None if isinstance(path, int) else str(path)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), shown)
        elif number == fault.at:
            os.kill(os.getpid(), _SIGNALS[fault.kind])

    _open = builtins.open

    def open_file(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode) & set("wax+"):
            before(file)
        return _open(file, mode, *args, **options)

    os_open = os.open

    def open_descriptor(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & _WRITES:
            before(path)
        return os_open(path, flags, *args, **options)

    builtins.open = io.open = open_file
    os.open = open_descriptor
    for name, needs_space in (("replace", False), ("fsync", True), ("mkdir", True)):
        setattr(os, name, _wrapped(getattr(os, name), before, needs_space))
    for name in ("unlink", "rmdir"):
        setattr(os, name, _wrapped(getattr(os, name), before, False))


def _wrapped(
    function: Callable[..., Any], before: Callable[..., None], needs_space: bool
) -> Callable[..., Any]:
    def call(path: Any, *args: Any, **options: Any) -> Any:
        before(path, needs_space=needs_space)
        return function(path, *args, **options)

    return call
