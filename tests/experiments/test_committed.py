"""What is committed under `experiments` can be made again by what it says of itself."""

import importlib
import json
import pathlib
import shlex

import pytest

import experiments
from distilljax import io, launch
from distilljax.models import convnet
from experiments.distill import options as distill_options
from experiments.gallery import run as gallery
from experiments.lab.networks import own_network
from experiments.lab.workdir import identity_of
from experiments.train_experts import run as train_experts

ROOT = pathlib.Path(experiments.__file__).parent
RUNS = [path.parent.relative_to(ROOT) for path in sorted(ROOT.rglob("config.json"))]


def parsed(command):
    python, flag, module, *argv = shlex.split(command)
    assert (python, flag) == ("python", "-m")
    run = importlib.import_module(f"{module}.run")
    return launch.parse(run.Config, argv, presets=getattr(run, "PRESETS", {}))


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_the_command_of_a_run_gives_its_settings(run):
    """Settings that came later have the values of today's defaults."""
    about = json.loads((ROOT / run / "config.json").read_text())
    assert about["command"].split()[2] == about["experiment"]
    config = parsed(about["command"])
    if isinstance(config, distill_options.Config):
        needed = "runs/experts" if distill_options.needs_experts(config) else None
        distill_options.check_options(config.replace({"experts_dir": needed}))
    again = dict(launch.flatten(identity_of(config)))
    for name, value in launch.flatten(about["config"]):
        assert again[name] == value, name


def test_the_network_of_an_older_set_is_that_of_the_defaults():
    """Made before `first_padding` and `activations` were options."""
    made = io.load(ROOT / "artefacts" / "mnist_dc_ipc1_width128" / "distilled.npz")
    assert "first_padding" not in made.config["convnet"]
    assert own_network("mnist", made).config == convnet.Config(width=128)


@pytest.mark.parametrize(
    "entry",
    [entry for entry in gallery.entries() if entry.summary.get("experts")],
    ids=lambda entry: entry.folder.name,
)
def test_experts_of_a_card_are_those_of_its_record(entry):
    training, distilling = gallery.commands(entry)
    config = parsed(training)
    assert isinstance(config, train_experts.Config)
    experts = entry.summary["experts"]
    name, model = config.chosen("model")
    assert {
        "num_experts": config.experts,
        "num_epochs": config.epochs,
        "held_out": config.held_out,
        "split_seed": config.split_seed,
        "seed": config.seed,
    }.items() <= experts.items()
    assert config.dataset == experts["dataset"]["name"]
    assert config.preprocess == experts["preprocess"]["kind"]
    assert name == experts["model"]["name"]
    assert experts["model"]["config"].items() <= model.to_dict().items()
    assert experts["recipe"].items() <= config.recipe.to_dict().items()
    assert parsed(distilling).experts_dir == config.workdir
