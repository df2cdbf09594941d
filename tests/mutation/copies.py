"""Copies of the repository, in which modules are changed; the work tree is left alone."""

import contextlib
import os
import pathlib
import queue
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.mutation import runs
from tests.mutation.sample import Mutant

ROOT = pathlib.Path(__file__).resolve().parents[2]
_Given = TypeVar("_Given")
_Found = TypeVar("_Found")


def copy(root: pathlib.Path, to: pathlib.Path) -> None:
    """Copies the files of a repository: those that git tracks or does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)


class Copies:
    """Some copies of the repository, each used by one task at a time."""

    def __init__(self, place: pathlib.Path, num: int, root: pathlib.Path = ROOT):
        """Makes `num` copies of `root` under `place`."""
        runs.prepare(place / "compiled")
        self._free: queue.SimpleQueue[pathlib.Path] = queue.SimpleQueue()
        for i in range(num):
            copy(root, place / f"copy{i}")
            self._free.put(place / f"copy{i}")
        self._pool = ThreadPoolExecutor(num)

    def __enter__(self) -> "Copies":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what has not begun."""
        self._pool.shutdown(cancel_futures=True)

    def each(
        self, task: Callable[[pathlib.Path, _Given], _Found], given: Iterable[_Given]
    ) -> Iterator[_Found]:
        """Yields what the task finds, given a copy and each of the values, in order."""

        def run(value: _Given) -> _Found:
            folder = self._free.get()
            try:
                return task(folder, value)
            finally:
                self._free.put(folder)

        return self._pool.map(run, given)


@contextlib.contextmanager
def mutated(folder: pathlib.Path, mutant: Mutant) -> Iterator[None]:
    """Changes a module of a copy, within the block."""
    path = folder / mutant.module
    whole = path.read_text()
    path.write_text(mutant.source)
    try:
        yield
    finally:
        path.write_text(whole)
