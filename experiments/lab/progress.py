"""Progress on stderr: a live bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from distilljax.loop import Progress, duration

SECONDS_BETWEEN_LINES = 10.0


class Cell(Protocol):
    """A unit of work that is kept when it is finished."""

    @property
    def identity(self) -> str:
        """SHA-256 of all that the cell depends on, see `kept.digest`."""

    @property
    def title(self) -> str:
        """Name in progress lines."""

    @property
    def kind(self) -> str:
        """Cells of one kind cost alike."""


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


class CellProgress:
    """Lines on stderr: after a cell, and after ten seconds of silence.

    A cell consists of equal units, such as networks. The time left takes each unit to
    cost what the last of its kind did; of a kind that is still to come, what the dearest
    did so far, by weight.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        unit: str,
        units: int | Sequence[int],
        *,
        noun: str = "cell",
        weights: Mapping[str, float] | None = None,
    ):
        """Before the first.

        Args:
          cells: that are to be computed.
          unit: what a cell consists of.
          units: how many, of all cells or of each.
          noun: what a cell is called.
          weights: kind -> what a unit costs, in any measure; else all cost alike.
        """
        self._unit, self._noun = unit, noun
        self._weights = weights or {}
        self._left = Counter[str]()  # kind -> units
        numbers = [units] * len(cells) if isinstance(units, int) else units
        self._left_of_cell: dict[str, int] = {}
        for cell, number in zip(cells, numbers, strict=True):
            self._left[cell.kind] += number
            self._left_of_cell[cell.identity] = number
        self._num_units, self._num_cells = self._left.total(), len(cells)
        self._cells_done = 0
        self._seconds: dict[str, float] = {}  # kind -> of its last unit
        self._silent_since = time.monotonic()

    def trained(self, cell: Cell, num: int, seconds: float, result: str = "") -> None:
        """`num` units more of the cell are done, in `seconds` together."""
        self._left[cell.kind] -= num
        self._left_of_cell[cell.identity] -= num
        self._seconds[cell.kind] = seconds / num
        whole = self._left_of_cell[cell.identity] == 0
        if not whole and time.monotonic() - self._silent_since > SECONDS_BETWEEN_LINES:
            self._print(cell, result)

    def finished(self, cell: Cell, result: str) -> None:
        """A cell is whole; something of its kind was trained before."""
        self._cells_done += 1
        self._print(cell, result)

    def seconds_left(self) -> float:
        """An estimate, once there is a unit to go by."""
        dearest = max(s / self._weights.get(k, 1) for k, s in self._seconds.items())
        return sum(
            num * self._seconds.get(kind, dearest * self._weights.get(kind, 1))
            for kind, num in self._left.items()
        )

    def _print(self, cell: Cell, result: str) -> None:
        self._silent_since = time.monotonic()
        done = self._num_units - self._left.total()
        print(
            f"{self._noun} {self._cells_done}/{self._num_cells}  "
            f"{self._unit} {done}/{self._num_units}  "
            f"{self._seconds[cell.kind]:.3g} s/{self._unit}  "
            f"about {duration(self.seconds_left())} left  "
            f"{cell.title}{': ' * bool(result)}{result}",
            file=sys.stderr,
            flush=True,
        )
