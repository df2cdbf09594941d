"""The record of `experiments.recognition`."""

from typing import Any, NotRequired, TypedDict

from distilljax.analysis.statistics import Spread
from experiments.lab.records import Common

TEST, REAL = "test images", "real images"  # rows, and pixels, of real images


class Recognised(TypedDict):
    """A set shown to the networks of one architecture."""

    accuracy: Spread
    loss: Spread  # mean cross-entropy


class Shown(TypedDict):
    """Images that networks are shown."""

    path: str | None  # of the artefact; None of real images
    method: str  # `random` or `test` of real images
    version: NotRequired[str]  # of the artefact
    num_images: int
    images_per_class: NotRequired[int]  # not of the test images


class Networks(TypedDict):
    """The networks of one architecture, and the settings of its model besides."""

    model: str
    width: NotRequired[int]
    parameters: int
    epochs: int
    training_loss: Spread
    seconds: float
    files: list[str]


class Pixels(TypedDict):
    """Pixel values of a set, back in the range of images; see `measures`."""

    mean: float
    std: float
    below: float  # share of values
    above: float
    outside: float
    quantiles: dict[str, float]  # share -> value


class Umap(TypedDict):
    """How the map by UMAP was made, or why there is none."""

    left_out: NotRequired[str]
    version: NotRequired[str]
    n_neighbors: NotRequired[int]
    random_state: NotRequired[int]


class Features(TypedDict):
    """The features drawn in `features.png`."""

    network: str
    num_test: int
    explained: list[float]  # share of the variance of each principal component
    umap: Umap


class Summary(Common):
    """The contents of `summary.json`."""

    recognition: dict[str, dict[str, Recognised]]  # row -> architecture
    rows: dict[str, Shown]
    networks: dict[str, Networks]
    recipe: dict[str, Any]
    pixels: dict[str, Pixels]  # artefact, or `real images`
    features: Features
    command: str
    seconds: float
