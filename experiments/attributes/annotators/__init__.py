"""Annotators: what can be said of an image without its label.

    annotations = Measured()(images)  # Annotations: names, kinds, descriptions, values

`Measured` computes pixel statistics. `Clip` asks a CLIP model, and needs the extra `clip`
and weights that are on this machine.
"""

from experiments.annotators.clip import Clip
from experiments.annotators.measured import Measured
from experiments.annotators.table import Annotations, Annotator, Kind

ANNOTATORS = ("measured", "clip")

__all__ = ["ANNOTATORS", "Annotations", "Annotator", "Clip", "Kind", "Measured"]
