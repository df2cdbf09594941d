"""Event files of TensorBoard: curves of every metric, a picture of the set at hand."""

import importlib.util
import os
import pathlib
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distilljax.disk.files import replacing
from distilljax.pictures import coloured, tile
from distilljax.types import InputError

MINE = ".distilljax"  # ends the names of the files
_LENGTH = struct.Struct("<Q")
_AROUND = 16  # bytes of a record besides its data: length, and two checksums


class TensorBoard:
    """Writes a run for TensorBoard; a `Hook`. Needs tensorboardX and Pillow.

    A folder is one run. When a run is resumed, the events of repeated steps are removed
    first, so that every point is there once. Files of other programs in the folder are left
    alone.

        >>> from distilljax.watching import TensorBoard
        >>> board = TensorBoard("board", num_classes=10)

    `distil(..., hook=board)` writes; `tensorboard --logdir=board` shows it.

    Args:
      folder: of the event files; made where it is missing.
      num_classes: k, rows of the picture; None: images are not written.

    Raises:
      InputError: a package is missing, or the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], num_classes: int | None = None):
        check_packages()
        self.folder = pathlib.Path(folder).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be made ({error.strerror}); choose another place"
            ) from None
        self._num_classes = num_classes
        self._writer: Any = None

    def __call__(
        self, step: int, metrics: Mapping[str, float], images: np.ndarray | None
    ) -> None:
        """Writes the metrics, and the picture where there are images."""
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event

        if self._writer is None:
            self._writer = self._begin(step)
        event = Event(step=step, wall_time=time.time())
        for name, value in metrics.items():
            event.summary.MergeFrom(summary.scalar(name, value))
        if images is not None and self._num_classes is not None:
            picture = coloured(tile(images, self._num_classes))
            event.summary.MergeFrom(summary.image("distilled", picture, dataformats="HWC"))
        self._writer.write_event(event)

    def flush(self) -> None:
        """Hands all events to the operating system, where they outlive the process."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Closes the file; a further step opens another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def last_step(self) -> int:
        """The last step in the files; 0 where there are none."""
        steps = [event.step for path in self._files() for _, event in _events(path)]
        return max(steps, default=0)

    def _files(self) -> list[pathlib.Path]:
        return sorted(self.folder.glob(f"*{MINE}"))

    def _begin(self, step: int) -> Any:
        from tensorboardX.event_file_writer import EventsWriter

        for path in self._files():
            keep_until(path, step - 1)
        return EventsWriter(str(self.folder / "events"), f".{step}{MINE}")


def check_packages() -> None:
    """Checks that event files can be written.

        >>> from distilljax.watching.events import check_packages
        >>> check_packages()

    Raises:
      InputError: a package is missing.
    """
    for module, name in (("tensorboardX", "tensorboardX"), ("PIL", "pillow")):
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"files of TensorBoard need {name}: pip install tensorboardX pillow (the "
                "extra tensorboard of distilljax)"
            )


def keep_until(path: pathlib.Path, step: int) -> None:
    """Leaves the events of a file up to a step; a record torn by a kill is left out.

    >>> board = events.TensorBoard("cut")
    >>> for step in (1, 2, 3):
    ...     board(step, {"loss": 1 / step}, None)
    ...
    >>> board.close()
    >>> for path in board.folder.iterdir():
    ...     events.keep_until(path, 2)
    ...
    >>> board.last_step()
    2
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(record for record, event in _events(path) if event.step <= step)


def _events(path: pathlib.Path) -> Iterator[tuple[bytes, Any]]:
    """Gives the records of a file and their events, up to the first that is damaged."""
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    for record in _records(path):
        try:
            yield record, Event.FromString(record[_LENGTH.size + 4 : -4])
        except DecodeError:
            return


def _records(path: pathlib.Path) -> Iterator[bytes]:
    """Gives the whole records of a TFRecord file: length, checksum, data, checksum."""
    with path.open("rb") as file:
        while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            if length > path.stat().st_size:
                return
            rest = file.read(length + _AROUND - _LENGTH.size)
            if len(rest) < length + _AROUND - _LENGTH.size:
                return
            yield head + rest
