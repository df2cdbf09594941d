"""Options of `experiments.distill`."""

import dataclasses
from typing import Literal

from distilljax.comparison.real import BASELINES
from distilljax.config import FieldError, chooses, option
from distilljax.core.parametrisations import PARAMETRISATIONS
from distilljax.distillation import start
from distilljax.methods import METHODS
from distilljax.models import MODELS
from experiments.lab.baselines import parse_baselines
from experiments.lab.choices import MethodChoice, ModelChoice, ParametrisationChoice
from experiments.lab.data import DataOptions
from experiments.lab.options import (
    ProcessesOption,
    ProtocolName,
    SeedOption,
    WorkdirOption,
    refuse_unread,
)


@chooses(
    "model",
    MODELS,
    "convnet",
    "Network that is trained on the distilled set.",
    changed={"convnet": {"width": 32}},
)
@chooses("method", METHODS, "bptt", "Distillation method.")
@chooses("parametrisation", PARAMETRISATIONS, "direct", "How the set is stored.")
@dataclasses.dataclass(frozen=True)
class Config(
    WorkdirOption,
    ProcessesOption,
    SeedOption,
    DataOptions,
    MethodChoice,
    ModelChoice,
    ParametrisationChoice,
):
    """Options of the experiment."""

    ipc: int = option(1, "Distilled images per class.", low=1)
    steps: int = option(80, "Outer steps.", low=1)
    init: start.Init = option(
        "real", "Images at the start; unit_noise: each of norm 1, as preprocessed."
    )
    init_from: str | None = option(None, "Start from this artefact (.npz) instead.")
    labels: Literal["hard", "soft", "expert"] = option(
        "hard",
        "One class each; or labels to be learned, which begin soft or as the experts' "
        "logits on the images.",
    )
    confidence: float = option(
        0.9,
        "Share of its own class in a label of labels=soft at the start.",
        above=0,
        rare=True,
    )
    experts_dir: str | None = option(
        None, "Folder of expert trajectories, made by experiments.train_experts."
    )
    num_experts: int | None = option(
        None, "Number of experts that are loaded; none: all.", low=1, rare=True
    )
    score_every: int = option(20, "Outer steps between scores on held-out data.", low=1)
    score_seeds: int = option(3, "Networks trained for each score.", low=1)
    protocol: ProtocolName = option(
        "study", "Training of the networks that choose the set and test it."
    )
    eval_seeds: int = option(5, "Networks trained for the final accuracy.", low=2)
    baselines: str = option(
        "random",
        f"Real images to compare with, with commas: {', '.join(BASELINES)}; empty: none.",
    )
    scores: bool = option(
        True,
        "Train what the scores of DD-Ranking need besides, see distilljax.comparison.fair.",
    )
    whole_epochs: int = option(
        3, "Epochs on the whole set, for comparison; 0 leaves it out.", low=0
    )
    whole_seeds: int = option(3, "Networks trained on the whole set.", low=2)
    checkpoint_seconds: float = option(60.0, "Time between checkpoints.", low=0)
    tensorboard: bool = option(
        False, "Write curves and pictures for TensorBoard beside the results."
    )
    hook: str | None = option(
        None,
        "Function package.module:function that is called for each outer step with (step, "
        "metrics, images), see distilljax.watching.",
    )

    def faster_on_cores(self) -> bool:
        """Returns whether the work is done faster by a device for each core of the CPU."""
        # Against threads two devices take outer steps 1.2 (width 128) to 1.6 times (32) as
        # fast for bptt, 1.4 to 2.2 times for dm and gm, 1.9 times for kernel, 1.0 to 1.5
        # times for tm, and test networks 1.1 to 2 times (`python -m benchmarks.cores`).
        # The weights of other networks are more, and cross devices in each inner step.
        return self.method != "bptt" or self.model == "convnet"


def matches_experts(config: Config) -> bool:
    """Whether the method reads expert trajectories in place of images."""
    name, _ = config.chosen("method")
    return METHODS[name].SOURCE == "experts"


def needs_experts(config: Config) -> bool:
    """Whether experts are needed: for the method, or for the labels at the start."""
    return matches_experts(config) or config.labels == "expert"


def learns_targets(config: Config) -> bool:
    """Whether the method's sets hold real-valued labels in place of label logits."""
    return start.learns_targets(config.chosen("method")[0])


def check_options(config: Config) -> None:
    """Checks what can be refused before any data are read.

    Raises:
      FieldError: options that do not go together.
    """
    parse_baselines(config.baselines, least=0)
    _check_labels(config)
    _check_experts(config)
    _check_unread(config)


def _check_labels(config: Config) -> None:
    method, group = config.chosen("method")
    learned = getattr(group, "label_lr", 0.0)
    if learns_targets(config):
        if config.labels == "soft":
            reason = f"the labels of {method} are real values, which need no confidence"
            raise FieldError("labels", "soft", f"{reason}; leave --labels out")
        return
    if learned and config.labels == "hard":
        reason = "hard labels cannot be learned; add --labels=soft or --labels=expert"
        raise FieldError(f"{method}.label_lr", learned, reason)
    if config.labels == "soft" and not learned:
        reason = f"{method} does not learn them here"
        if hasattr(group, "label_lr"):
            reason += f"; give --{method}.label_lr"
        raise FieldError("labels", "soft", reason)
    if config.labels == "soft" and config.confidence >= 1:
        reason = "labels that are certain have no gradient; give less, such as 0.9"
        raise FieldError("confidence", config.confidence, reason)
    parametrisation, _ = config.chosen("parametrisation")
    if config.init_from and (parametrisation, config.labels) != ("direct", "hard"):
        reason = "goes with --parametrisation=direct and --labels=hard alone"
        raise FieldError("init_from", config.init_from, reason)


def _check_experts(config: Config) -> None:
    method, _ = config.chosen("method")
    for name in ("experts_dir", "num_experts"):
        if (value := getattr(config, name)) and not needs_experts(config):
            reason = f"--method={method} --labels={config.labels} uses none"
            raise FieldError(name, value, reason)
    if not config.experts_dir and needs_experts(config):
        reason = (
            "a folder of expert trajectories is needed; make one with "
            "python -m experiments.train_experts"
        )
        raise FieldError("experts_dir", None, reason)


def _check_unread(config: Config) -> None:
    """Refuses options that nothing reads beside others."""
    if config.init_from and config.init != "real":
        reason = "--init_from names the images at the start; leave one of the two out"
        raise FieldError("init", config.init, reason)
    if config.labels != "soft":
        reason = f"--labels={config.labels} uses none"
        refuse_unread(config, "confidence", reason, "leave it out, or give --labels=soft")
    if not config.whole_epochs:
        refuse_unread(config, "whole_seeds", "--whole_epochs=0 trains none")
