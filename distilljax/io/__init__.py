"""Files: the distilled-set artefact, expert trajectories, checkpoints, records."""

from distilljax.io import environment, files, records, trajectories
from distilljax.io.artefact import Artefact, load, save
from distilljax.io.checkpoints import Checkpoints

__all__ = [
    "Artefact",
    "Checkpoints",
    "environment",
    "files",
    "load",
    "records",
    "save",
    "trajectories",
]
