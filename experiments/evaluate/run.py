"""Train fresh networks on a distilled set, test them, and show the set.

    python -m experiments.evaluate --artefact=runs/distill/.../distilled.npz
    python -m experiments.evaluate --artefact=set.npz --protocol=dsa --model=mlp --seeds=10

The data, the preprocessing and, without flags, the protocol and the network are those
that the artefact names; a protocol with a network of its own (`frepo`, `rcig`, `rfad`)
brings it. `summary.json` holds the accuracy of the set and of as many real images
(`--baselines`), each with its number of seeds and its spread, and the scores of DD-Ranking
(`distilljax.comparison.fair`); `grid.png` shows the set.
"""

import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from distilljax import data, devices, io, launch
from distilljax.analysis.statistics import Spread
from distilljax.comparison import fair
from distilljax.comparison.real import BASELINES, select_baselines, validation_images
from distilljax.config import Config as Base
from distilljax.config import FieldError, chooses, option
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.models import MODELS
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Model
from experiments.lab.accuracy import print_accuracies
from experiments.lab.baselines import parse_baselines
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.keys import expert, fresh_key
from experiments.lab.networks import Network, model_of, sized_model
from experiments.lab.options import (
    OWN,
    LabelsOption,
    NetworksOption,
    ProcessesOption,
    ProtocolOrOwn,
    RealDataOptions,
    SeedOption,
    WorkdirOption,
    expand,
    refuse_unread,
)
from experiments.lab.pictures import image_grid, kept_apart
from experiments.lab.progress import duration
from experiments.lab.protocols import batch_of, chosen_network, chosen_protocol
from experiments.lab.records import (
    DatasetRecord,
    Origin,
    ProtocolRecord,
    describe_protocol,
    write_summary,
)
from experiments.lab.sets import Named, displayable, file_of, load, stored_ipc
from experiments.lab.workdir import open_workdir, workdir_path

NAME = "experiments.evaluate"


class _Own:
    """The network that the artefact was made with."""

    @dataclasses.dataclass(frozen=True)
    class Config(Base):
        """The network that the artefact was made with."""


@chooses("model", {OWN: _Own, **MODELS}, OWN, "Network that is trained on the set.")
@dataclasses.dataclass(frozen=True)
class Config(
    WorkdirOption,
    NetworksOption,
    ProcessesOption,
    SeedOption,
    RealDataOptions,
    LabelsOption,
):
    """Options of the experiment."""

    artefact: str = option("", "The distilled set (.npz) to evaluate.")
    protocol: ProtocolOrOwn = option(
        "own", "Training of the networks; own: as the set was made for."
    )
    baselines: str = option(
        "random",
        f"Real images to compare with, with commas: {', '.join(BASELINES)}; empty: none.",
    )
    seeds: int = option(5, "Networks trained.", low=2)
    scores: bool = option(
        True,
        "Train what the scores of DD-Ranking need besides, see distilljax.comparison.fair.",
    )
    expert_epochs: int = option(
        3, "Epochs of the network that labels random images beside soft labels.", low=1
    )
    whole_epochs: int = option(
        0, "Epochs on the whole training set, which HLR and LRS need; 0: none.", low=0
    )
    whole_seeds: int = option(3, "Networks trained on the whole set.", low=2)


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
    scores: NotRequired[fair.Scores]
    labels: NotRequired[str]
    network: NotRequired[dict[str, Any]]
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
    if not config.whole_epochs:
        refuse_unread(config, "whole_seeds", "--whole_epochs=0 trains none")
    if not config.scores:
        refuse_unread(config, "expert_epochs", "--noscores has no network that labels")
    path = file_of(expand(config.artefact))
    named = Named(path, load(path, config.data_dir))
    label = f"{pathlib.Path(path).resolve().parent.name}-{config.protocol}"
    workdir = workdir_path(NAME, config, label)
    with open_workdir(workdir, NAME, config):
        summary = _evaluate(config, named, workdir)
    title = f"Test accuracy on {summary['dataset']['name']}, protocol {config.protocol}"
    print_accuracies(summary["accuracy"], title)
    if text := fair.spelt_scores(summary["scores"]):
        print(text)
    print(f"{duration(summary['seconds'])}. summary.json and grid.png lie in {workdir}")
    return summary


def _evaluate(config: Config, named: Named, workdir: pathlib.Path) -> Summary:
    began = time.perf_counter()
    artefact = named.artefact
    baselines = parse_baselines(config.baselines, least=0)
    loaded = load_data_of(named, config.dataset, config.data_dir)
    protocol = chosen_protocol(config.protocol, artefact)
    batch_of("the artefact", artefact, protocol, config.labels)
    network, model = _model(config, artefact, loaded)
    accuracy, scores = _accuracies(config, baselines, artefact, loaded, model, protocol)
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
        "scores": scores,
        "labels": config.labels,
        "network": network,
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


def _model(
    config: Config, artefact: io.Artefact, loaded: data.Dataset
) -> tuple[dict[str, Any], Model]:
    """Returns the network's settings, and the network.

    `own` is that of the protocol, where it brings one, else the artefact's.
    """
    name, group = config.chosen("model")
    if name != OWN:
        model = model_of(config, loaded.image_shape, loaded.num_classes)
        return Network(name, name, group).described(), model
    network = chosen_network(config.protocol, "the artefact", artefact, "model")
    return network.described(), sized_model(network, loaded, "model")[0]


def _accuracies(
    config: Config,
    baselines: Sequence[str],
    artefact: io.Artefact,
    loaded: data.Dataset,
    model: Model,
    protocol: EvaluationProtocol,
) -> tuple[dict[str, Spread], fair.Scores]:
    """Returns the test accuracies of the set and of real images, and the scores."""
    k, transform = loaded.num_classes, artefact.transform
    test, train = (data.on_device(s, transform, k) for s in (loaded.test, loaded.train))
    ipc = stored_ipc(artefact)
    problem = fair.Problem(
        fresh_key(config.seed),
        expert(config.seed),
        config.seeds,
        model,
        protocol,
        artefact.distilled,
        artefact.targets,
        config.labels,
        select_baselines(baselines, loaded.train, train, ipc, config.seeds, config.seed),
        train,
        test,
        validation_images(protocol, loaded.train, transform, k),
        devices.mesh(config.devices),
    )
    wanted = fair.Wanted(
        config.scores, config.whole_epochs, config.whole_seeds, config.expert_epochs
    )
    return fair.measure_fairly(problem, wanted)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
