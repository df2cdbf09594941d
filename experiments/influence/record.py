"""The record of `experiments.influence`."""

from typing import NotRequired, TypedDict

from distilljax.analysis.statistics import Spread, SpreadInterval
from experiments.lab.records import Common


class Reliability(TypedDict):
    """A number over seeds, with the standard error of a jackknife over them."""

    value: float
    standard_error: float | None
    of: str
    seeds: int


class Correlation(Spread):
    """Rank correlations over test images: mean over left-out images, a value a seed."""

    over_images_std: float | None  # over seeds and left-out images
    undefined: int  # correlations that are not defined


class SolvedSystems(TypedDict):
    """Linear systems of influence functions, all left-out images of one seed."""

    damping: float
    converged: int
    most_iterations: int
    largest_residual: float


class SolvedRidge(TypedDict):
    """Kernel ridge regression of one seed, in closed form."""

    ridge: float


class Correlations(TypedDict):
    """An approximation beside leave-one-out."""

    with_the_same_initialisation: Correlation
    with_the_mean_over_initialisations: Correlation


class Estimated(Correlations):
    """An approximation beside leave-one-out, and how it was solved."""

    solved: list[SolvedSystems | SolvedRidge]  # one for each seed


class Score(Spread):
    """Linear datamodelling score: mean over test images, a value a seed."""

    of_means: float  # of influences and losses that are means over seeds


class Subsets(TypedDict):
    """Networks trained on random subsets of the set, and how influences foretell them."""

    number: int  # subsets, the same for each seed
    size: int  # images of each
    networks: int
    leave_one_out: Score
    estimates: dict[str, Score]


class ArtefactRecord(TypedDict):
    """The distilled set."""

    path: str
    method: str


class Summary(Common):
    """The contents of `summary.json`."""

    images: int  # of the distilled set
    test_images: int
    networks: int
    accuracy_on_all: Spread
    accuracy_without_one: float
    mean_absolute_influence: float
    mean_noise_floor: float
    over_noise: NotRequired[Reliability]  # mean absolute influence of single seeds
    influence_over_noise: NotRequired[SpreadInterval]  # of records before 2026-11-30
    share_above_two_standard_errors: float
    reliability: Reliability
    same_class_among_top_nine: float
    estimates: dict[str, Estimated]
    subsets: NotRequired[Subsets | None]  # None where no networks were trained on any
    most_influenced: list[list[int]]  # positions in the test split, nine an image
    artefact: ArtefactRecord
    parameters: int
    protocol: str
    seconds: float
