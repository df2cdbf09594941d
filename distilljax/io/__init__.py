"""Files: the distilled-set artefact, checkpoints, records."""

from distilljax.io.artefact import Artefact, load, save
from distilljax.io.checkpoints import Checkpoints

__all__ = ["Artefact", "Checkpoints", "load", "save"]
