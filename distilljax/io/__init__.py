"""Files: the distilled-set artefact, expert trajectories, checkpoints, records;
sets of other programs."""

from distilljax.io import environment, files, foreign, records, trajectories
from distilljax.io.artefact import Artefact, load, save
from distilljax.io.checkpoints import Checkpoints

__all__ = [
    "Artefact",
    "Checkpoints",
    "environment",
    "files",
    "foreign",
    "load",
    "records",
    "save",
    "trajectories",
]
