"""Files: the distilled-set artefact, foreign sets, expert trajectories, records."""

from distilljax.io import environment, foreign, records, trajectories
from distilljax.io.artefact import Artefact, load, save
from distilljax.io.checkpoints import Checkpoints

__all__ = [
    "Artefact",
    "Checkpoints",
    "environment",
    "foreign",
    "load",
    "records",
    "save",
    "trajectories",
]
