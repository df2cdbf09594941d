"""Annotators: attributes of images, told without their labels.

    annotations = Measured()(images)  # Annotations: names, kinds, descriptions, values

`Measured` computes pixel statistics. `Clip` uses a CLIP model; it needs the extra `clip`
and weights on this machine.
"""

from experiments.attributes.annotators.clip import Clip
from experiments.attributes.annotators.measured import Measured
from experiments.attributes.annotators.table import Annotations, Annotator, Kind

ANNOTATORS = ("measured", "clip")

__all__ = ["ANNOTATORS", "Annotations", "Annotator", "Clip", "Kind", "Measured"]
