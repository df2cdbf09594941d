"""Hooks: functions that a run calls for each outer step."""

import contextlib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distilljax.loop import Progress, Stop
from distilljax.types import DistilledSet, InputError

# Called once for each outer step, in order: with the number of steps taken; the metrics of
# that step (`loss`, `grad_norm`, `learning_rate`, and `score` where the set was scored);
# and where it was scored the images, f32[n, h, w, c] in 0..1, class-ordered, else None.
Hook = Callable[[int, Mapping[str, float], np.ndarray | None], object]


class Watcher:
    """Gives the outer steps of a run to hooks.

    `records` and `progress` are callbacks of `distilljax.loop.run`. A hook may raise
    `Stop`, which ends the run and keeps its result. Any other exception ends it too, at a
    step from which it can go on; `closing` then raises it.

        >>> from distilljax.watching import Watcher
        >>> told = []
        >>> watcher = Watcher([lambda *given: told.append(given)], pixels=None)
        >>> watcher.records([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
        >>> told
        [(1, {'loss': 0.5}, None), (2, {'loss': 0.25}, None)]

    Args:
      hooks: see `Hook`. Where one has a method `flush`, it is called after each dispatch,
        before a checkpoint of its steps is saved; where one has `close`, at the end.
      pixels: set -> its images for a picture, f32[n, h, w, c] in 0..1.
    """

    def __init__(
        self, hooks: Sequence[Hook], pixels: Callable[[DistilledSet], np.ndarray] | None
    ):
        self._hooks, self._pixels = hooks, pixels
        self._scored: Mapping[str, Any] | None = None  # waits for the set
        self._failed: tuple[int, Exception] | None = None

    def records(self, new: Sequence[Mapping[str, Any]]) -> None:
        """Tells of the steps of a dispatch, but of one that was scored: see `progress`."""
        for record in new:
            if "score" in record:
                self._scored = record
            else:
                self._tell(record, None)

    def progress(self, progress: Progress) -> None:
        """Tells of a step that was scored, with the set at hand."""
        if self._failed:
            return
        scored, self._scored = self._scored, None
        if scored is not None:
            images = self._pixels(progress.distilled) if self._pixels else None
            self._tell(scored, images)
        with self._kept(progress.step):
            self._call("flush")

    def replay(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Tells of steps that were taken before, without the set."""
        for record in history:
            told = {n: math.nan if v is None else v for n, v in record.items()}
            del told["step"]
            for hook in self._hooks:
                hook(record["step"], told, None)
        self._call("flush")

    @contextlib.contextmanager
    def closing(self, goes_on: str) -> Iterator[None]:
        """Closes the hooks after the block, and then raises what one of them has raised.

        Args:
          goes_on: what became of the run, the end of the message.

        Raises:
          InputError: a hook failed.
        """
        try:
            yield
        finally:
            self._call("close")
        if self._failed:
            step, error = self._failed
            raise InputError(
                f"the hook failed at outer step {step} ({_short(error)}); {goes_on}"
            ) from error

    def _tell(self, record: Mapping[str, Any], images: np.ndarray | None) -> None:
        metrics = {name: value for name, value in record.items() if name != "step"}
        with self._kept(record["step"]):
            for hook in self._hooks:
                hook(record["step"], metrics, images)

    def _call(self, name: str) -> None:
        for hook in self._hooks:
            if method := getattr(hook, name, None):
                method()

    @contextlib.contextmanager
    def _kept(self, step: int) -> Iterator[None]:
        """Keeps what a hook raises, and stops the run."""
        try:
            yield
        except Stop:
            raise
        except Exception as error:
            self._failed = step, error
            raise Stop from error


def find(name: str) -> Hook:
    """Returns the hook that `package.module:function` names.

    Modules in the current directory are found too, after those that are installed.

        >>> from distilljax.watching import find
        >>> find("logging:log")
        <function log at ...>

    Args:
      name: a module and what it holds, a function of three arguments; see `Hook`.

    Raises:
      InputError: there is no such function, or it takes other arguments.
    """
    module_name, _, function = name.partition(":")
    if not module_name or not function.isidentifier():
        raise InputError("name a function as package.module:function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that it shadows nothing
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, module_name):
            reason = f"no module {error.name} is installed, or in the working directory"
        else:
            reason = f"importing {module_name} fails ({_short(error)})"
        raise InputError(reason) from None
    found = getattr(module, function, None)
    if found is None:
        raise InputError(f"module {module_name} has no {function}")
    check_hook(found)
    return found


def check_hook(hook: Any) -> None:
    """Checks that a hook can be called as one.

        >>> from distilljax.watching import check_hook
        >>> check_hook(lambda step, metrics, images: None)

    Raises:
      InputError: it is no function, or takes other arguments.
    """
    if not callable(hook):
        raise InputError(
            f"a hook is a function of (step, metrics, images), not {type(hook).__name__}"
        )
    try:
        signature = inspect.signature(hook)
    except ValueError:  # some built-in functions do not tell
        return
    try:
        signature.bind(0, {}, None)
    except TypeError as error:
        raise InputError(
            "a hook is called as hook(step, metrics, images), and this one takes other "
            f"arguments ({error})"
        ) from None


def _is_part(missing: str | None, module: str) -> bool:
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def _short(error: Exception) -> str:
    """Returns the kind of an error and the first line of its text."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}{': ' * bool(first)}{first:.200}"
