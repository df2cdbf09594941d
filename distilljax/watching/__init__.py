"""Watching a run: a line of progress, TensorBoard, and a hook for anything else.

`distil(hook=...)` and `experiments.distill --hook=package.module:function` call a function
of (step, metrics, images), a `Hook`; `TensorBoard` is one, and a few lines make one of
Weights & Biases or MLflow. `Line` is for `distil(on_progress=...)`: a line that a terminal
and a notebook rewrite in place.
"""

from distilljax.pictures import tile
from distilljax.watching.events import TensorBoard
from distilljax.watching.hooks import Hook, Watcher, check_hook, find
from distilljax.watching.line import Line

__all__ = ["Hook", "Line", "TensorBoard", "Watcher", "check_hook", "find", "tile"]
