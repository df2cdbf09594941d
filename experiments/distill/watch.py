"""What watches a distillation: TensorBoard and a hook of the user's."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distilljax import pictures, processes, watching
from distilljax.config import FieldError
from distilljax.io import records
from distilljax.types import DistilledSet, InputError
from distilljax.watching import events
from experiments.distill.options import Config
from experiments.distill.setting import Setting

BOARD = "tensorboard"  # folder of the event files, beside the run


def find_hook(config: Config) -> watching.Hook | None:
    """Returns the function of `--hook`; None where there is none.

    Raises:
      FieldError: there is no such function, or a package for TensorBoard is missing.
    """
    try:
        if config.tensorboard:
            events.check_packages()
    except InputError as error:
        raise FieldError("tensorboard", True, str(error)) from None
    try:
        return watching.find(config.hook) if config.hook else None
    except InputError as error:
        raise FieldError("hook", config.hook, str(error)) from None


def catch_up(board: watching.TensorBoard, history: Sequence[Mapping[str, Any]]) -> None:
    """Draws the curves of steps that the run has taken while TensorBoard did not watch."""
    last = board.last_step()
    watching.Watcher([board], None).replay([r for r in history if r["step"] > last])


def make_watcher(
    config: Config,
    hook: watching.Hook | None,
    setting: Setting,
    workdir: pathlib.Path,
    metrics: pathlib.Path,
) -> watching.Watcher:
    """Returns what tells TensorBoard and the hook, in the first process of a run.

    Args:
      config: the options.
      hook: of `--hook`.
      setting: of the distillation.
      workdir: folder of the run.
      metrics: records of the steps before a resume; read for TensorBoard alone.
    """
    first = processes.index() == 0
    hooks: list[watching.Hook] = [hook] if hook and first else []
    if config.tensorboard and first:
        board = watching.TensorBoard(workdir / BOARD, setting.prepared.data.num_classes)
        catch_up(board, records.read(metrics))
        hooks.insert(0, board)

    def pixels(distilled: DistilledSet) -> np.ndarray:
        return pictures.pixels(distilled.images, setting.prepared.transform)

    return watching.Watcher(hooks, pixels)
