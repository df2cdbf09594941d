"""The record of `experiments.attributes`."""

from typing import Any, NotRequired, TypedDict

from experiments.lab.records import Common


class DiscoveryRate(TypedDict):
    """Findings at a false discovery rate of 5 % (Benjamini and Hochberg)."""

    significant: int
    expected_by_chance: float
    p: float


class Counts(TypedDict):
    """Numbers of tests and findings (Holm)."""

    tests: int
    significant: int
    expected_by_chance: float  # mean over permutations
    p: float  # one-sided, of as many findings by chance
    p_fewer: NotRequired[float]  # of as few; both count what is equal
    images_with_finding: int
    images: int
    permutations: int
    false_discovery_rate: DiscoveryRate


class Coherence(TypedDict):
    """Mean cosine within each group, less that of random groups of the class."""

    mean: float
    interval: list[float]  # over the means of classes
    classes: NotRequired[int]  # one an image in records without
    images_above: int
    p_values: list[float]
    q_values: list[float]
    images: list[int]
    similarity: list[float]
    chance: list[float]
    chance_std: list[float]
    draws: int


# A test; `rate` of a boolean attribute, `mean` of another.
Finding = TypedDict(
    "Finding",
    {
        "image": int,
        "class": str,
        "attribute": str,
        "annotator": str,
        "rate": NotRequired[float],
        "mean": NotRequired[float],
        "base": float,
        "effect": float,
        "p": float,
        "p_holm": float,
        "q": float,
    },
)


class Attribute(TypedDict):
    """A column of an annotator."""

    kind: str
    description: str


class Influence(TypedDict):
    """The influences that groups were made of."""

    path: str
    seeds: int
    test_images: int
    smallest_class: int
    mean_of_groups: float
    positive_in_groups: float
    noise_floor: float
    own_class_among_top: float


class FeatureNetwork(TypedDict):
    """The network whose features are compared, with further settings of its model."""

    model: str
    width: NotRequired[int]
    parameters: int
    recipe: dict[str, Any]
    epochs: int
    training_loss: float
    accuracy: float
    seconds: float


class Summary(Common):
    """The contents of `summary.json`."""

    attributes: Counts
    coherence: Coherence
    enrichment: list[Finding]  # the smallest p first, at most `MOST_ROWS`
    annotators: dict[str, dict[str, Attribute]]
    artefact: str
    method: str
    label: str
    influence: Influence
    top: int
    among: str
    network: FeatureNetwork
    command: str
    seconds: float


def rate_or_mean(row: Finding) -> float:
    """Returns the rate or the mean within the group."""
    return row["rate"] if "rate" in row else row["mean"]
