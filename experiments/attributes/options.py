"""Options of `experiments.attributes`."""

import dataclasses
from typing import Literal

from distilljax.config import FieldError, option
from distilljax.training.expert import Recipe
from experiments.attributes.annotators import ANNOTATORS, Annotator, Clip, Measured
from experiments.attributes.annotators import clip as clip_annotator
from experiments.lab import options
from experiments.lab.networks import ARCHITECTURES

Among = Literal["class", "all"]


@dataclasses.dataclass(frozen=True)
class Config(options.WorkdirOption, options.SeedOption, options.RealDataOptions):
    """Options of the experiment."""

    influence: str = option("", "A finished working directory of experiments.influence.")
    artefact: str | None = option(
        None, "Where the distilled set lies now; none: where that run found it."
    )
    dataset: str | None = option(None, "Where its data lie now; none: where they did.")
    top: int = option(20, "Most influenced test images that make a group.", low=2)
    among: Among = option(
        "class",
        "Groups are the first --top of the image's class, or those of its class among the "
        "first --top of all.",
    )
    annotators: str = option(
        "measured", f"Sources of attributes, with commas: {', '.join(ANNOTATORS)}."
    )
    clip: clip_annotator.Config = option(
        clip_annotator.Config(), "The annotator clip, where it is among --annotators."
    )
    permutations: int = option(200, "Permutations for the null distribution.", low=19)
    model: str = option(
        options.OWN,
        "Network whose features are compared, trained on real images: own, "
        f"{', '.join(ARCHITECTURES)}.",
    )
    width_scale: float = option(1.0, "Width multiplier of --model, if not own.", above=0)
    epochs: int = option(3, "Epochs of its training.", low=1)
    recipe: Recipe = option(Recipe(momentum=0.9, augment=""), "Training of the network.")
    shown: int = option(10, "Distilled images in the picture.", low=1)


def make_annotators(config: Config) -> list[Annotator]:
    """Returns the annotators of `--annotators`.

    Raises:
      InputError: an unknown one, one that cannot be made, or options of one not named.
    """
    names = options.parse_choices(config.annotators, "annotators", ANNOTATORS, "annotator")
    if "clip" not in names and config.clip != clip_annotator.Config():
        reason = "--clip.* options have no meaning without clip, name it too"
        raise FieldError("annotators", config.annotators, reason)
    return [Measured() if name == "measured" else Clip(config.clip) for name in names]
