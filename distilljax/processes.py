"""Several processes that are one run: each computes, the first reads and writes.

All processes execute the same program on the devices of all. What touches files of the
run goes through `once`: the first process does it and the others are given its result or
its error, so that they decide alike and need no file system in common. Data and other
inputs are read by each process; `same` refuses those that differ.

With one process all of this does nothing.
"""

import contextlib
import functools
import hashlib
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from distilljax import platforms
from distilljax.types import InputError

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

LEAST_BYTES = 1024  # of a message; longer ones are filled up to a power of two

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


def start(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the other processes of a run; before the first computation of JAX.

    Args:
      coordinator_address: host:port of the first process.
      num_processes: how many there are.
      process_id: which this is, from 0. None is found out by JAX, which knows Slurm,
        Open MPI, Kubernetes and TPU pods.

    Raises:
      InputError: no cluster that JAX knows, processes that do not answer, or machines
        that are not alike: another jaxlib, other devices, or another number of threads.
    """
    # An interruption is ours to handle, see `interruptions`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (ValueError, RuntimeError, TypeError, KeyError, OSError) as error:
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        raise InputError(
            f"the processes of the run do not find each other ({first}); on a cluster that "
            "JAX knows start them by its launcher, such as srun; elsewhere give each "
            "--coordinator_address=HOST:PORT, --num_processes and --process_id"
        ) from None
    threads = platforms.cpu_threads() if platforms.on_cpu() else ""
    kind, num = jax.local_devices()[0].device_kind, jax.local_device_count()
    same("the machine", f"{jax.lib.__version__} {num} {kind} {threads}")


def leave() -> None:
    """Leaves the other processes once all of them do; nothing where there are none.

    One that ends without it ends those that have not come as far.
    """
    jax.distributed.shutdown()


def count() -> int:
    """Returns the number of processes of the run; does not start JAX where it is one."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Returns which process this is, from 0."""
    return jax.process_index() if count() > 1 else 0


def once(function: Callable[P, T]) -> Callable[P, T]:
    """Returns a function that the first process calls and that returns to all.

    All processes must call it, in the same order. Its result, or the exception that it
    raises, is pickled for the others. What it calls may itself be of `once`.
    """

    @functools.wraps(function)
    def shared(*args: P.args, **kwargs: P.kwargs) -> T:
        if count() == 1 or _ALONE.get():
            return function(*args, **kwargs)
        value: Any = None
        error: Exception | None = None
        if index() == 0:
            within = _ALONE.set(True)
            try:
                value = function(*args, **kwargs)
            except Exception as raised:
                error = raised
            finally:
                _ALONE.reset(within)
            _from_first(pickle.dumps((value, error)))
        else:
            value, error = pickle.loads(_from_first(b""))
        if error is not None:
            raise known_to_all(error)
        return value

    return shared


def same(what: str, value: str) -> None:
    """Checks that all processes have the same value.

    Args:
      what: names it, such as `the data`.
      value: compared by its SHA-256.

    Raises:
      InputError: they differ; in every process.
    """
    if count() == 1 or _ALONE.get():
        return
    own = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    theirs = gathered(own)
    other = np.flatnonzero((theirs != theirs[0]).any(axis=1))
    if other.size:
        raise known_to_all(
            InputError(
                f"{what} of process {other[0]} and of process 0 differ; start all "
                "processes by the same command, on machines alike, with the same files"
            )
        )


def gathered(values: np.ndarray) -> np.ndarray:
    """Returns the values of all processes, [processes, ...]."""
    if count() == 1:
        return values[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values))


def known_to_all(error: E) -> E:
    """Marks an error that every process raises: the first alone says so."""
    error._known_to_all = True  # type: ignore[attr-defined]
    return error


def is_known_to_all(error: BaseException) -> bool:
    """Whether every process raises this error: one of them need say so."""
    return getattr(error, "_known_to_all", False) is True


@contextlib.contextmanager
def interruptions() -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM of one of several processes, for all to end together.

    Yields a list that grows by each signal. With one process nothing is collected, and an
    interruption raises `KeyboardInterrupt` where it comes.
    """
    asked: list[int] = []
    if count() == 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    kept = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(one, lambda number, _: asked.append(number)) for one in kept]
    try:
        yield asked
    finally:
        for one, handler in zip(kept, before, strict=True):
            signal.signal(one, handler)


def _from_first(message: bytes) -> bytes:
    """Returns the message of the first process."""
    from jax.experimental import multihost_utils

    first = index() == 0
    size = int(gathered(np.array([len(message)], np.int32))[0, 0])
    length = max(LEAST_BYTES, 1 << (size - 1).bit_length())
    held = np.zeros(length, np.uint8)
    if first:
        held[:size] = np.frombuffer(message, np.uint8)
    told = multihost_utils.broadcast_one_to_all(held, is_source=first)
    return np.asarray(told)[:size].tobytes()
