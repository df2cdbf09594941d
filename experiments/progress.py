"""A live progress bar on a terminal; a line every few seconds elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from distilljax.loop import Progress

SECONDS_BETWEEN_LINES = 10.0


def duration(seconds: float) -> str:
    """Such as 42s, 3m05s, 2h07m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _figures(progress: Progress) -> str:
    score = "" if progress.score is None else f"  held-out {progress.score:.1%}"
    return (
        f"{progress.steps_per_second:.3g} steps/s  {duration(progress.seconds_left)} left"
        f"  outer loss {progress.loss:.4g}{score}"
    )


class Display:
    """Shows the progress of one run; a context manager."""

    def __init__(self, title: str):
        self._title = title
        self._console = Console(file=sys.stderr)
        self._last_line = 0.0
        self._bar: Bar | None = None
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(title, total=None, figures="compiling")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Shows the newest figures."""
        if self._bar:
            self._bar.update(
                self._task,
                total=progress.num_steps,
                completed=progress.step,
                figures=_figures(progress),
            )
            return
        now = time.monotonic()
        finished = progress.step == progress.num_steps
        if finished or now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(
                f"{self._title} {progress.step}/{progress.num_steps}  {_figures(progress)}",
                file=sys.stderr,
                flush=True,
            )
