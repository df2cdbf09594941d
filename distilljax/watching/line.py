"""A line of progress, for terminals, notebooks and log files."""

import sys
import time
from typing import TextIO

from distilljax.loop import Progress


class Line:
    """Shows `Progress`; for `distil(on_progress=...)`.

    A terminal and a notebook rewrite the line in place. Elsewhere, as in a log file, there
    is a line for each new score, one every `seconds`, and the last.

        >>> from distilljax.watching import Line
        >>> show = Line(seconds=30)

    Args:
      stream: where to write; standard output if None.
      seconds: between two lines in a log file.
    """

    def __init__(self, stream: TextIO | None = None, seconds: float = 10.0):
        self._stream = stream
        self._seconds = seconds
        self._told = -float("inf")
        self._shown: tuple[float | None, int] = (None, 0)  # score, width of the line

    def __call__(self, progress: Progress) -> None:
        """Shows the newest figures."""
        stream = self._stream or sys.stdout
        text, finished = str(progress), progress.step >= progress.num_steps
        score, width = self._shown
        if is_live(stream):
            stream.write(f"\r{text:<{width}}" + "\n" * finished)
        elif finished or progress.score != score or self._waited():
            self._told = time.monotonic()
            stream.write(f"{text}\n")
        self._shown = progress.score, len(text)
        stream.flush()

    def _waited(self) -> bool:
        return time.monotonic() - self._told >= self._seconds


def is_live(stream: TextIO) -> bool:
    """Returns whether a carriage return rewrites a line: on a terminal, in a notebook.

    >>> import io
    >>> from distilljax.watching.line import is_live
    >>> is_live(io.StringIO())
    False
    """
    return stream.isatty() or type(stream).__module__.startswith("ipykernel")
