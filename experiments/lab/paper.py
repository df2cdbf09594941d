"""The study of Yang et al. 2024: its sections, and its numbers to compare with.

W. Yang, Y. Zhu, Z. Deng, O. Russakovsky, "What is Dataset Distillation Learning?",
ICML 2024 (PMLR 235), arXiv 2406.04284. Numbers printed in the authors' released notebooks
where there are such; else read off their figures, to about 0.005 of an accuracy and 60 of
a trace. CIFAR-10, ten images a class, ConvNet of depth 3 and width 128, one network or
run a number.
"""

from collections.abc import Mapping
from typing import NamedTuple

TITLE = "What is Dataset Distillation Learning?"

AUTHORS = "W. Yang, Y. Zhu, Z. Deng, O. Russakovsky"

VENUE = "ICML 2024 (PMLR 235)"

ARXIV = "2406.04284"

DATASET, WIDTH, IPC, EPOCHS = "cifar10", 128, 10, 40

SETTING = "CIFAR-10, width 128"

PRECISION = "read off figures to about 0.5 points of accuracy and 60 of a trace"

Row = tuple[float, ...]

# Accuracy by the study's own protocol, printed.
STANDARD: Mapping[str, float] = {
    "bptt": 0.589,
    "dm": 0.4266,
    "gm": 0.4596,
    "tm": 0.5363,
}

# Accuracy with so many real images added to each class.
REAL_PER_CLASS = (0, 2, 10, 50, 250)

MIXING: Mapping[str, Row] = {
    "bptt": (0.587, 0.544, 0.498, 0.504, 0.597),
    "tm": (0.533, 0.492, 0.454, 0.497, 0.592),
    "gm": (0.447, 0.440, 0.424, 0.472, 0.59),
    "dm": (0.430, 0.404, 0.417, 0.480, 0.59),
    "random": (0.273, 0.287, 0.326, 0.452, 0.585),
}


class Recogniser(NamedTuple):
    """A network trained on real images, and what it recognises."""

    name: str
    width: int | None  # None where we do not know it
    epochs: int | None
    test: float  # accuracy
    sets: Mapping[str, float]  # accuracy


# By the name that `experiments.common.ARCHITECTURES` gives the network. The paper calls
# resnet34 a ResNet-32.
RECOGNITION: Mapping[str, Recogniser] = {
    "resnet18": Recogniser(
        "ResNet-18", None, None, 0.9079, {"tm": 0.93, "bptt": 0.91, "dm": 0.46, "gm": 0.41}
    ),
    "convnet": Recogniser(
        "ConvNet", 128, 40, 0.8091, {"tm": 1.0, "bptt": 1.0, "dm": 0.71, "gm": 0.68}
    ),
    "convnet16": Recogniser(
        "ConvNet", 16, 20, 0.6837, {"tm": 1.0, "bptt": 1.0, "dm": 0.54, "gm": 0.55}
    ),
    "resnet34": Recogniser(
        "ResNet-34", None, None, 0.9276, {"tm": 0.95, "bptt": 0.95, "dm": 0.41, "gm": 0.36}
    ),
}


class Modes(NamedTuple):
    """Where the two distributions of agreement peak."""

    subset: float
    early_stopped: float
    iteration: int  # at which training was stopped, chosen by hand


AGREEMENT: Mapping[str, Modes] = {
    "bptt": Modes(0.622, 0.660, 130),
    "tm": Modes(0.57, 0.63, 90),
    "gm": Modes(0.51, 0.58, 35),
    "dm": Modes(0.47, 0.575, 40),
}

# Accuracy along one run on real images; `test` is that on test images.
TRAINING_ITERATIONS = (20, 60, 100, 150, 298)

TRAINING: Mapping[str, Row] = {
    "test": (0.38, 0.50, 0.56, 0.60, 0.67),
    "bptt": (0.36, 0.79, 0.98, 1.0, 1.0),
    "tm": (0.38, 0.72, 0.99, 1.0, 1.0),
    "gm": (0.42, 0.76, 0.78, 0.86, 0.84),
    "dm": (0.45, 0.56, 0.64, 0.71, 0.80),
}

# Trace of the loss Hessian along one run, smoothed by an exponential moving average that
# keeps `SMOOTHING` of what was there before; `real` is that on all training images.
SMOOTHING = 0.9

TRACE_ITERATIONS = (0, 30, 50, 75, 100, 150, 200, 250, 299)

TRACE: Mapping[str, Row] = {
    "real": (0, 1290, 1720, 2130, 2020, 2100, 1890, 1910, 1790),
    "bptt": (150, 1540, 2990, 4330, 3820, 2190, 1180, 720, 450),
    "tm": (-70, 1770, 3080, 4670, 4550, 3280, 1970, 1240, 740),
    "gm": (0, 2320, 3350, 3830, 3600, 3070, 2320, 2390, 2060),
    "dm": (80, 1520, 2520, 3530, 3370, 3370, 2990, 2910, 2330),
}


class Section(NamedTuple):
    """A section of the report."""

    key: str  # of its address
    short: str  # in the navigation
    heading: str
    text: str  # its introduction
    order: float  # sections are sorted by it
    place: str  # in the paper, in words; `OURS` beyond it


OURS = "ours, beyond the paper"


WORTH = Section(
    "standard",
    "Worth",
    "What the sets are worth",
    "Networks are trained from scratch on each set, and tested. Each has initial weights "
    "of its own, and each random baseline images of its own.",
    1,
    "common setting",
)
STAND_IN = Section(
    "3",
    "§ 3 Stand-in",
    "Can distilled data stand in for real data?",
    "If distilled images stood in for real ones, networks that know only real images would "
    "recognise them, and more real images beside them could do no harm. The paper has one "
    "network a number, and other initial weights at each point of the mixing curve; here "
    "networks of one number share weights and real images, so that differences are taken "
    "network by network.",
    3,
    "sec. 3",
)
PREDICTIONS = Section(
    "4.1",
    "§ 4.1 Agreement",
    "Predictions: like a network that was stopped early?",
    "Whose predictions do networks trained on a set share: those of networks that saw all "
    "real images for a short time, or a few for a long one? The paper matches accuracies "
    "to one or two points and picks iterations by hand; here pools are matched by accuracy "
    "automatically.",
    4.1,
    "sec. 4.1",
)
RECOGNITION_IN_TRAINING = Section(
    "4.2",
    "§ 4.2 Recognition",
    "When in training are the sets recognised?",
    "One network learns real images, and is shown each set along the way.",
    4.2,
    "sec. 4.2",
)
CURVATURE = Section(
    "4.3",
    "§ 4.3 Curvature",
    "How sharp is the loss on them?",
    "The trace of the loss Hessian on each set, while a network learns real images. The "
    "paper stops probing when the running mean settles; here the number of probes is "
    "fixed, and the standard error shown.",
    4.3,
    "sec. 4.3",
)
SINGLE_IMAGES = Section(
    "5.2",
    "§ 5.2 Influence",
    "What does one distilled image act on?",
    "Each image of a set is left out in turn, and test losses are compared with those of a "
    "network that had it. The paper has one initialisation; several tell influence from "
    "chance.",
    5.1,
    "sec. 5.2",
)
SHARED_ATTRIBUTES = Section(
    "5",
    "§ 5 Attributes",
    "What do the images that it acts on share?",
    "What do the real images that a distilled image acts on have in common? The paper asks "
    "a vision-language model, and released no code.",
    5.2,
    "sec. 5",
)
BEYOND = Section(
    "beyond",
    "Beyond",
    "Beyond the paper",
    "Claims of our own, and tables that the paper has none of.",
    9,
    OURS,
)
