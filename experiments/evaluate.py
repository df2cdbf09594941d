"""Train fresh networks on a distilled set, test them, and show the set.

    python -m experiments.evaluate --artefact=runs/distill/.../distilled.npz
    python -m experiments.evaluate --artefact=set.npz --protocol=dsa --model=mlp --seeds=10

The data, the preprocessing and, without flags, the protocol and the network are those
that the artefact names. `summary.json` holds the accuracy of the set and of as many real
images (`--baselines`), each with its number of seeds and its spread; `grid.png` shows it.
"""

import dataclasses
import json
import pathlib
import time
from typing import Any, Literal

from distilljax import data, io
from distilljax.config import Config as Base
from distilljax.config import FieldError, chooses, option
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.io.files import write_json
from distilljax.models import MODELS
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import Model
from experiments.lab.accuracy import compare_accuracies, print_accuracies
from experiments.lab.baselines import BASELINES, parse_baselines, select_baselines
from experiments.lab.data import load_data_of
from experiments.lab.keys import fresh_key
from experiments.lab.networks import model_of
from experiments.lab.pictures import image_grid
from experiments.lab.progress import duration
from experiments.lab.sets import Named, displayable, stored_ipc
from experiments.lab.workdir import open_workdir, workdir_path


class _Own:
    """The network that the artefact was made with."""

    @dataclasses.dataclass(frozen=True)
    class Config(Base):
        """The network that the artefact was made with."""


@chooses("model", {"own": _Own, **MODELS}, "own", "Network that is trained on the set.")
@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the experiment."""

    artefact: str = option("", "The distilled set (.npz) to evaluate.")
    dataset: str | None = option(None, "Data to test on; none: those it was made of.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    protocol: Literal["own", "study", "dc", "dsa", "mtt"] = option(
        "own", "How networks are trained on the set; own: as it was made for."
    )
    baselines: str = option(
        "random", f"Real images to compare with, with commas: {', '.join(BASELINES)}."
    )
    seeds: int = option(5, "Networks trained.", low=2)
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    workdir: str | None = option(
        None, "Where the results go; none: a folder under runs/ named by the settings."
    )


def _model(config: Any, artefact: io.Artefact, loaded: data.Dataset) -> Model:
    shape, k = loaded.image_shape, loaded.num_classes
    if config.model != "own":
        return model_of(config, shape, k)
    name = artefact.config.get("model")
    if name not in MODELS:
        raise FieldError(
            "model",
            "own",
            f"the artefact names {name!r}; choose one of {', '.join(MODELS)}",
        )
    group = MODELS[name].Config.from_dict(artefact.config[name])
    return MODELS[name].make(group, shape, k)


def run(config: Any) -> dict[str, Any]:
    """Evaluates an artefact; returns what `summary.json` holds.

    Raises:
      InputError: an artefact, data or working directory that cannot be used.
    """
    if not config.artefact:
        raise FieldError("artefact", "", "name a distilled set, such as distilled.npz")
    artefact = io.load(config.artefact)
    label = f"{pathlib.Path(config.artefact).resolve().parent.name}-{config.protocol}"
    workdir = workdir_path("experiments.evaluate", config, label)
    with open_workdir(workdir, "experiments.evaluate", config):
        summary = _evaluate(config, artefact, workdir)
    title = f"Test accuracy on {summary['dataset']['name']}, protocol {config.protocol}"
    print_accuracies(summary["accuracy"], title)
    print(f"{duration(summary['seconds'])}. summary.json and grid.png lie in {workdir}")
    return summary


def _evaluate(config: Any, artefact: io.Artefact, workdir: pathlib.Path) -> dict[str, Any]:
    began = time.perf_counter()
    names = parse_baselines(config.baselines)
    named = Named(config.artefact, artefact)
    loaded = load_data_of(named, config.dataset, config.data_dir)
    model = _model(config, artefact, loaded)
    protocol = artefact.protocol if config.protocol == "own" else PROTOCOLS[config.protocol]
    k = loaded.num_classes
    test = data.on_device(loaded.test, artefact.transform, k)
    num = artefact.distilled.images.shape[0]
    baselines = select_baselines(
        names,
        loaded.train,
        data.on_device(loaded.train, artefact.transform, k),
        stored_ipc(artefact),
        config.seeds,
    )
    accuracy = compare_accuracies(
        fresh_key(config.seed),
        config.seeds,
        model,
        artefact.distilled,
        baselines,
        test,
        protocol,
    )
    image_grid(
        workdir / "grid.png",
        displayable(artefact.transform, artefact.distilled.images),
        artefact.class_names,
        f"{artefact.method} on {loaded.name}, {num // k} per class",
    )
    summary = {
        "accuracy": accuracy,
        "protocol": {"name": config.protocol, **protocol.to_dict()},
        "dataset": {
            "name": loaded.name,
            "source": loaded.source,
            "fingerprint": loaded.fingerprint,
            "same_as_distilled": loaded.fingerprint == artefact.dataset["fingerprint"],
        },
        "artefact": {
            "path": config.artefact,
            "method": artefact.method,
            "version": artefact.version,
            "notes": dict(artefact.notes),
        },
        "seconds": time.perf_counter() - began,
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    write_json(workdir / "summary.json", summary)
    return json.loads(json.dumps(summary))


def main(config: Any) -> None:
    """Entry of the command line."""
    run(config)
