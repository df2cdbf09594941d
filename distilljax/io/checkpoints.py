"""Asynchronous, atomic, checksummed checkpoints of a pytree, by Orbax."""

import contextlib
import errno
import functools
import gc
import hashlib
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import devices, processes
from distilljax.disk.files import NO_SPACE
from distilljax.types import InputError

OVERHEAD = 16 * 1024  # bytes of a checkpoint for each array, at most


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _unwrap(x: Any) -> Any:
    return jax.random.key_data(x) if _is_key(x) else x


def _on_host(x: Any) -> np.ndarray:
    return np.asarray(_unwrap(x))


def _kinds(state: Any) -> list[tuple[Any, ...]]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]


def _placed(value: np.ndarray, like: Any) -> Any:
    """Returns a restored array where `like` lies, which may be a key."""
    if _is_key(like):
        data = _placed(value, jax.random.key_data(like))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))
    place = getattr(like, "sharding", None)
    return jnp.asarray(value) if place is None else devices.placed(value, place)


def _digest(state: Any, identity: str) -> np.ndarray:
    """Returns the SHA-256 of identity, dtypes, shapes and bytes, u8[32].

    Orbax has no checksum.
    """
    digest = hashlib.sha256(identity.encode())
    for leaf in map(np.asarray, jax.tree.leaves(state)):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


@contextlib.contextmanager
def _one_error(directory: pathlib.Path) -> Iterator[None]:
    """Raises the `OSError` of a full disk for the many forms that Orbax gives it."""
    try:
        yield
    except Exception as error:
        said = _texts(error)
        for number in NO_SPACE:
            if os.strerror(number) in said:
                text = os.strerror(number)
                raise OSError(number, text, str(directory)) from None
        raise


def _texts(error: BaseException | None) -> str:
    """Returns the messages of an error and of those that led to it."""
    found, seen = [], set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(found)


def _require_space(directory: pathlib.Path, state: Any) -> None:
    """Refuses to begin a checkpoint for which there is no room.

    Orbax's threads, once begun, print tracebacks of their own when the disk is full.
    """
    leaves = jax.tree.leaves(state)
    needed = sum(leaf.nbytes for leaf in leaves) + OVERHEAD * (len(leaves) + 1)
    if shutil.disk_usage(directory).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """Whether a record is no error of Orbax's threads: `Checkpoints` raises those."""
    return "orbax" not in record.pathname


def _not_of_a_future(record: logging.LogRecord) -> bool:
    """Whether a record is no error of a future that Orbax left behind."""
    return "exception was never retrieved" not in record.getMessage()


class Checkpoints:
    """The checkpoints of one run.

    Saving copies the state and returns; a background thread writes it under a temporary
    name and renames it when complete, so that a process killed at any time leaves only
    complete checkpoints.
    """

    def __init__(
        self, directory: pathlib.Path, max_to_keep: int = 2, *, identity: str = ""
    ):
        """Opens the folder, which is made where it is missing.

        Args:
          directory: of the checkpoints.
          max_to_keep: how many of the newest are left.
          identity: of the run; a checkpoint of another is refused.
        """
        self._identity, self._max_to_keep = identity, max_to_keep
        self._directory = directory.absolute()
        processes.once(self._tidy)()

    def _tidy(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        for unfinished in self._directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(unfinished, ignore_errors=True)

    @functools.cached_property
    def _manager(self) -> Any:
        """Orbax, which takes long to import: where there is something to read or save."""
        import orbax.checkpoint as ocp

        logging.getLogger("absl").addFilter(_not_of_orbax)
        logging.getLogger("asyncio").addFilter(_not_of_a_future)
        _silence_late_reads()
        # Made in a thread, a folder that cannot be made leaves the others waiting for it.
        at_once = ocp.AsyncOptions(create_directories_asynchronously=False)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._max_to_keep, async_options=at_once
        )
        if processes.count() > 1:  # the others wait for no barrier of Orbax's
            options.multiprocessing_options = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="distilljax"
            )
            options.create = False
        return ocp.CheckpointManager(self._directory, options=options)

    @processes.once
    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        if "_manager" not in vars(self) and not any(self._directory.iterdir()):
            return None
        step: int | None = self._manager.latest_step()
        return step

    @processes.once
    def save(self, step: int, state: Any) -> None:
        """Starts writing `state`; waits only for the device and a previous save.

        Raises:
          OSError: the disk is full, here or in the previous save.
        """
        packed = jax.tree.map(_on_host, state)
        held = {"state": packed, "digest": _digest(packed, self._identity)}
        _require_space(self._directory, held)
        import orbax.checkpoint as ocp

        with _one_error(self._directory):
            self._manager.save(step, args=ocp.args.StandardSave(held), force=True)

    def restore(self, step: int, like: Any) -> Any:
        """Restores the state saved at `step`, with the structure and dtypes of `like`.

        Each array is put where that of `like` lies, on any number of devices.

        Raises:
          InputError: the checkpoint cannot be read, or has another structure, checksum or
            identity.
        """
        return jax.tree.map(_placed, self._read(step, like), like)

    @processes.once
    def _read(self, step: int, like: Any) -> Any:
        """Returns the state of a checkpoint as NumPy arrays."""
        packed = jax.tree.map(_on_host, like)
        held = {"state": packed, "digest": _digest(packed, self._identity)}
        import orbax.checkpoint as ocp

        failed = ""
        try:
            held = self._manager.restore(step, args=ocp.args.StandardRestore(held))
            if not np.array_equal(held["digest"], _digest(held["state"], self._identity)):
                failed = (
                    "its checksum differs: it is damaged, or of a run with other settings"
                )
            elif _kinds(held["state"]) != _kinds(packed):
                failed = "other shapes"
        except Exception as error:
            failed = type(error).__name__
        if failed:
            _end_reads()
            raise InputError(
                f"checkpoint {self._directory / str(step)} cannot be restored ({failed}); "
                "delete that folder to fall back on an earlier checkpoint, or choose "
                "another workdir or folder of the run"
            )
        return held["state"]

    def close(self) -> None:
        """Waits for pending writes and closes the manager."""
        if "_manager" not in vars(self):
            return
        with _one_error(self._directory):
            self._manager.wait_until_finished()
            self._manager.close()


def _end_reads() -> None:
    """Ends the reads that Orbax leaves behind where one of them fails.

    Each would say "Exception ignored" on stderr whenever it is collected.
    """
    said, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = said


@functools.cache
def _silence_late_reads() -> None:
    """Lets TensorStore end in silence what it reads for a restore that has failed."""
    said = sys.unraisablehook

    def but_late_reads(about: Any) -> None:
        if "Event loop is closed" not in str(about.exc_value):
            said(about)

    sys.unraisablehook = but_late_reads
