"""Options of `experiments.dynamics`, and what they choose."""

import dataclasses
from typing import NamedTuple

from distilljax.config import FieldError, chooses, offers, option
from distilljax.models import MODELS
from distilljax.probes import PROBES
from experiments.lab import options
from experiments.lab.data import Preprocess
from experiments.lab.sets import Named, load_artefacts

REAL = "real"  # of --train_on

REAL_SETS = ("train", "test", "random")


@offers(PROBES, changed={"accuracy": {"images": 2000}})
@chooses(
    "model",
    MODELS,
    "convnet",
    "Network that is trained.",
    changed={"convnet": {"width": 32}},
)
@dataclasses.dataclass(frozen=True)
class Config(
    options.WorkdirOption,
    options.DevicesOption,
    options.SeedOption,
    options.RealDataOptions,
    options.LabelsOption,
    options.ArtefactsOption,
):
    """Options of the experiment."""

    sets: str = option(
        ",".join(REAL_SETS),
        f"Real sets to look at, with commas: {', '.join(REAL_SETS)} (--ipc of each class).",
    )
    ipc: int = option(10, "Random real images of each class, in the set `random`.", low=1)
    probes: str = option(
        "accuracy,hessian_trace",
        f"Probes, with commas: {', '.join(PROBES)}; accuracy@5 looks every 5 iterations.",
    )
    dataset: str | None = option(
        None, "Real data; none: those the artefacts were made of, or `embedded`."
    )
    preprocess: Preprocess = option(
        "normalise", "Preprocessing of the images without artefacts; else as theirs."
    )
    train_on: str = option(
        REAL, "What the network learns: `real`, or the path of a distilled set."
    )
    iterations: int = option(300, "Steps of SGD.", low=1)
    every: int = option(10, "Iterations between measurements.", low=1)
    batch: int = option(256, "Images a step; a distilled set is taken whole.", low=1)
    lr: float = option(0.01, "Learning rate.", above=0)
    momentum: float = option(0.9, "Momentum.", low=0, high=1)
    runs: int = option(1, "Networks trained, each from weights of its own.", low=1)


class Choice(NamedTuple):
    """The meaning of the options, before data are read."""

    every: dict[str, int]  # probe -> iterations between its measurements
    real_sets: list[str]
    artefacts: dict[str, Named]  # by label; that of --train_on among them

    def points(self, iterations: int) -> dict[str, list[int]]:
        """Returns the iterations that each probe looks at, of a run of `iterations`."""
        return {
            name: list(range(0, iterations + 1, every))
            for name, every in self.every.items()
        }


def choose(config: Config) -> Choice:
    """Reads the options and the artefacts.

    Raises:
      InputError: options or artefacts that cannot be used.
    """
    every = probes_of(config)
    real_sets = options.parse_choices(config.sets, "sets", REAL_SETS, "set", least=0)
    paths = options.parse_paths(config.artefacts, "artefacts")
    train_on = options.expand(config.train_on)
    if not train_on:
        raise FieldError("train_on", "", f"name {REAL} or a distilled set")
    if train_on not in (REAL, *paths):
        paths.append(train_on)
    artefacts = load_artefacts(",".join(paths), data_dir=config.data_dir) if paths else {}
    _check_unread(config, real_sets, paths)
    if not artefacts and not real_sets:
        raise FieldError("sets", config.sets, "name a set to look at, or give --artefacts")
    return Choice(every, real_sets, artefacts)


def _check_unread(config: Config, real_sets: list[str], paths: list[str]) -> None:
    """Refuses options that nothing reads beside others."""
    if "random" not in real_sets:
        options.refuse_unread(config, "ipc", f"--sets={config.sets} does not name random")
    if config.train_on != REAL:
        options.refuse_unread(config, "batch", "a distilled set is taken whole")
    if paths:
        options.refuse_unread(config, "preprocess", "images go through that of the sets")
    else:
        options.refuse_unread(config, "labels", "there are no distilled sets")


def probes_of(config: Config) -> dict[str, int]:
    """Returns probe -> iterations between its measurements.

    Raises:
      FieldError: an unknown probe, one named twice, or options of one not named.
    """
    cadence: dict[str, int] = {}
    for part in config.probes.split(","):
        name, at, every = part.strip().partition("@")
        if name not in PROBES:
            reason = f"unknown probe {name!r}; choose among {', '.join(PROBES)}"
            raise FieldError("probes", config.probes, reason)
        if name in cadence:
            raise FieldError("probes", config.probes, f"{name} is named twice")
        if at and not (every.isdecimal() and len(every) < 10 and int(every) > 0):
            reason = f"{part.strip()}: after @ comes a number of iterations, as in {name}@5"
            raise FieldError("probes", config.probes, reason)
        cadence[name] = int(every) if at else config.every
    for name in PROBES:
        if name not in cadence and getattr(config, name) != getattr(type(config)(), name):
            reason = f"does not name {name}, for which there are options"
            raise FieldError("probes", config.probes, reason)
    return cadence
