"""The terminal of a run of several processes: the first one's, and one line if it fails.

JAX's runtime writes to the file descriptors of the process, past Python, and ends it when
another process dies. Its output goes through a small process of its own, which drops what
the runtime says of itself and gives its end one line.
"""

import contextlib
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, TextIO

from distilljax import processes
from distilljax.config import Config
from distilljax.types import InputError

LOST = (
    "another process of this run has ended or does not answer, what it said tells why; "
    "what was saved is kept, and the same command goes on with any number of processes"
)
_OF_RUNTIME = ("gloo", "coordination service", "nccl", "socket closed", "connection reset")

# What it is told of by `_tell`.
_NUMBER, _LOST, _SAID = "number", "lost", "said"

_FILTER = r"""
import os, re, sys
lost = sys.argv[1].encode()
noise = re.compile(rb"coordination|preemption_sync|heartbeat|gloo", re.I)
record = re.compile(rb"[IWEF]\d{4} \d\d:")
number, held, dropping, ended = b"?", b"", False, False
while part := os.read(0, 1 << 16):
    *lines, held = (held + part).split(b"\n")
    for line in lines:
        told, _, value = line.partition(b" ") if line.startswith(b"\0") else (b"", b"", b"")
        if ended or line.startswith(b"[Gloo]"):
            continue
        if told == b"\0number":
            number = value
        elif told == b"\0said":
            ended = True
        elif told or b"JAX distributed service detected fatal errors" in line:
            ended = True
            os.write(2, b"error: process %s: %s\n" % (number, lost))
        else:
            if record.match(line):
                dropping = bool(noise.search(line))
            if line and not dropping:
                os.write(2, line + b"\n")
"""


def join(configs: Sequence[Config]) -> None:
    """Joins the processes of a run if the options say so, and leaves the terminal to one.

    Args:
      configs: of the command, one or several that are run one after the other; the
        options are those of `experiments.lab.options.ProcessesOption`.

    Raises:
      InputError: see `processes.start`; or the processes have different commands.
    """
    options = [config.to_dict() for config in configs]
    about = ("coordinator_address", "num_processes", "process_id")
    chosen = [[given.get(name) for name in ("distributed", *about)] for given in options]
    if any(one != chosen[0] for one in chosen):
        raise InputError(
            "--sweep: all runs have the same processes; give --distributed and the "
            "options of processes once"
        )
    given = options[0]
    if not given.get("distributed"):
        return
    _screen()
    if given["process_id"] is not None:
        _tell(_NUMBER, str(given["process_id"]))
    processes.start(*(given[name] for name in about))
    _tell(_NUMBER, str(processes.index()))
    if processes.index() > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    said = [repr(config.replace({"process_id": None})) for config in configs]
    processes.same("the command", "\n".join(said))


def _screen() -> None:
    """Keeps Python's output as it is; that of the runtime goes through the filter."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        stream.flush()
        own = os.dup(descriptor)
        kept = {"encoding": stream.encoding, "errors": stream.errors}
        setattr(sys, name, os.fdopen(own, "w", buffering=1, **kept))
    read, write = os.pipe()
    command = [sys.executable, "-I", "-S", "-c", _FILTER, LOST]
    subprocess.Popen(command, stdin=read, start_new_session=True)
    os.close(read)
    global _errors
    _errors = sys.stderr
    for descriptor in (1, 2):
        os.dup2(write, descriptor)
    os.close(write)


# Of this process, also where the terminal is that of another.
_errors: TextIO | None = None


def end(code: int, text: str | None, error: BaseException) -> NoReturn:
    """Ends one of several processes at once; the others find out.

    An error that all have is said by the first, and they end together.

    Args:
      code: exit code.
      text: one line; None for the traceback.
      error: what happened.
    """
    if text == LOST:
        _tell(_LOST)
    else:
        said()
        first = processes.index() == 0
        if first or not processes.is_known_to_all(error):
            if text is None:
                traceback.print_exception(error, file=_errors)
            else:
                who = "" if first else f"process {processes.index()}: "
                print(f"error: {who}{text}", file=_errors, flush=True)
    sys.stdout.flush()
    wait(error)
    os._exit(code)


def wait(error: BaseException) -> None:
    """Waits for the others where all end by an error.

    JAX ends a process whose coordinator, in the first one, is no longer there.
    """
    if processes.is_known_to_all(error):
        with contextlib.suppress(Exception):  # of one that has died meanwhile
            processes.leave()


def said() -> None:
    """Tells the filter that the end of this process needs no line."""
    _tell(_SAID)


def _tell(what: str, value: str = "") -> None:
    if _errors is not None:
        os.write(2, f"\n\0{what} {value}\n".encode())


def lost(error: BaseException) -> bool:
    """Whether an error is the runtime's, for want of another process."""
    text = str(error).lower()
    return any(word in text for word in _OF_RUNTIME)
