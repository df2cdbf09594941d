"""Train fresh networks on a distilled set, test them, and show the set.

    python -m experiments.evaluate --artefact=runs/distill/.../distilled.npz
    python -m experiments.evaluate --artefact=set.npz --protocol=dsa --model=mlp --seeds=10

The data, the preprocessing and, without flags, the protocol and the network are those
that the artefact names. `summary.json` holds the accuracy of the set and of as many real
images (`--baselines`), each with its number of seeds and its spread; `grid.png` shows the
set.
"""

import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from distilljax import data, io, launch
from distilljax.analysis.statistics import Spread
from distilljax.config import Config as Base
from distilljax.config import FieldError, chooses, option
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.models import MODELS
from distilljax.training.evaluation import PROTOCOLS, EvaluationProtocol
from distilljax.types import Model
from experiments.lab.accuracy import compare_accuracies, print_accuracies
from experiments.lab.baselines import BASELINES, parse_baselines, select_baselines
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.keys import fresh_key
from experiments.lab.networks import model_of, own_network, sized_model
from experiments.lab.options import OWN, RealDataOptions, SeedOption, WorkdirOption, expand
from experiments.lab.pictures import image_grid, kept_apart
from experiments.lab.progress import duration
from experiments.lab.records import (
    DatasetRecord,
    Origin,
    ProtocolRecord,
    describe_protocol,
    write_summary,
)
from experiments.lab.sets import Named, displayable, stored_ipc
from experiments.lab.workdir import open_workdir, workdir_path

NAME = "experiments.evaluate"


class _Own:
    """The network that the artefact was made with."""

    @dataclasses.dataclass(frozen=True)
    class Config(Base):
        """The network that the artefact was made with."""


@chooses("model", {OWN: _Own, **MODELS}, OWN, "Network that is trained on the set.")
@dataclasses.dataclass(frozen=True)
class Config(WorkdirOption, SeedOption, RealDataOptions):
    """Options of the experiment."""

    artefact: str = option("", "The distilled set (.npz) to evaluate.")
    protocol: Literal["own", "study", "dc", "dsa", "mtt"] = option(
        "own", "Training of the networks; own: as the set was made for."
    )
    baselines: str = option(
        "random", f"Real images to compare with, with commas: {', '.join(BASELINES)}."
    )
    seeds: int = option(5, "Networks trained.", low=2)


class TestedDataset(DatasetRecord):
    """The data that networks were tested on."""

    same_as_distilled: bool  # whether the set was made of them


class ArtefactRecord(TypedDict):
    """The distilled set of a record."""

    path: str
    method: str
    version: str
    notes: dict[str, Any]


class Summary(Origin):
    """The contents of `summary.json`."""

    accuracy: dict[str, Spread]  # by the names of `accuracy.TRAINED_ON`
    protocol: ProtocolRecord
    dataset: TestedDataset
    artefact: ArtefactRecord
    seconds: float


def run(config: Config) -> Summary:
    """Evaluates an artefact; returns the contents of `summary.json`.

    Raises:
      InputError: an artefact, data or working directory that cannot be used.
    """
    if not config.artefact:
        raise FieldError("artefact", "", "name a distilled set, such as distilled.npz")
    path = expand(config.artefact)
    named = Named(path, io.load(path))
    label = f"{pathlib.Path(path).resolve().parent.name}-{config.protocol}"
    workdir = workdir_path(NAME, config, label)
    with open_workdir(workdir, NAME, config):
        summary = _evaluate(config, named, workdir)
    title = f"Test accuracy on {summary['dataset']['name']}, protocol {config.protocol}"
    print_accuracies(summary["accuracy"], title)
    print(f"{duration(summary['seconds'])}. summary.json and grid.png lie in {workdir}")
    return summary


def _evaluate(config: Config, named: Named, workdir: pathlib.Path) -> Summary:
    began = time.perf_counter()
    artefact = named.artefact
    baselines = parse_baselines(config.baselines)
    loaded = load_data_of(named, config.dataset, config.data_dir)
    model = _model(config, artefact, loaded)
    protocol = PROTOCOLS.get(config.protocol, artefact.protocol)
    accuracy = _accuracies(config, baselines, artefact, loaded, model, protocol)
    num, k = artefact.distilled.images.shape[0], loaded.num_classes
    with kept_apart("the picture"):
        image_grid(
            workdir / "grid.png",
            displayable(artefact.transform, artefact.distilled.images),
            artefact.class_names,
            f"{artefact.method} on {loaded.name}, {num // k} per class",
        )
    same = loaded.fingerprint == artefact.dataset.get("fingerprint")
    summary: Summary = {
        "accuracy": accuracy,
        "protocol": describe_protocol(config.protocol, protocol),
        "dataset": {**describe_dataset(loaded), "same_as_distilled": same},
        "artefact": {
            "path": named.path,
            "method": artefact.method,
            "version": artefact.version,
            "notes": dict(artefact.notes),
        },
        "seconds": time.perf_counter() - began,
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    return write_summary(workdir, Summary, summary)


def _model(config: Config, artefact: io.Artefact, loaded: data.Dataset) -> Model:
    name, _ = config.chosen("model")
    if name != OWN:
        return model_of(config, loaded.image_shape, loaded.num_classes)
    network = own_network("the artefact", artefact, "model")
    return sized_model(network, loaded, "model")[0]


def _accuracies(
    config: Config,
    baselines: Sequence[str],
    artefact: io.Artefact,
    loaded: data.Dataset,
    model: Model,
    protocol: EvaluationProtocol,
) -> dict[str, Spread]:
    """Returns the test accuracy of the set and of each baseline."""
    test, train = (
        data.on_device(split, artefact.transform, loaded.num_classes)
        for split in (loaded.test, loaded.train)
    )
    ipc = stored_ipc(artefact)
    return compare_accuracies(
        fresh_key(config.seed),
        config.seeds,
        model,
        artefact.distilled,
        select_baselines(baselines, loaded.train, train, ipc, config.seeds),
        test,
        protocol,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
