"""Experts, as those who train them and those who use them describe them."""

import shlex
from collections.abc import Mapping
from typing import Any

from distilljax.io import trajectories
from experiments.lab.data import DataOptions, Prepared


def identify_experts(config: DataOptions, prepared: Prepared) -> dict[str, Any]:
    """Returns what experts and their users must agree on, for `trajectories.Store.check`.

    Args:
      config: options with the selector `model`.
      prepared: the data that they name.
    """
    loaded, (model, group) = prepared.data, config.chosen("model")
    return {
        "dataset": {"fingerprint": loaded.fingerprint},
        "preprocess": trajectories.describe_transform(
            prepared.transform, loaded.image_shape
        ),
        "held_out": config.held_out,
        "split_seed": config.split_seed,
        "model": {"name": model, "config": group.to_dict()},
    }


def later_settings(config: DataOptions) -> dict[str, Any]:
    """Returns the settings that a record of older experts may lack: today's defaults.

    Args:
      config: options with the selector `model`.
    """
    _, group = config.chosen("model")
    return {"model": {"config": type(group)().to_dict()}}


def training_command(described: Mapping[str, Any], workdir: str) -> str:
    """Returns the command that trains experts of that description again.

    It names every setting, so that no default of a later version changes it.

    Args:
      described: the `experts` of a record, a `trajectories.Description`.
      workdir: where they are to lie.
    """
    model = described["model"]
    said = {
        "dataset": described["dataset"]["name"],
        "preprocess": described["preprocess"]["kind"],
        "held_out": described["held_out"],
        "split_seed": described["split_seed"],
        "seed": described["seed"],
        "experts": described["num_experts"],
        "epochs": described["num_epochs"],
        "model": model["name"],
        **{f"{model['name']}.{name}": value for name, value in model["config"].items()},
        **{f"recipe.{name}": value for name, value in described["recipe"].items()},
        "workdir": workdir,
    }
    flags = [f"--{name}={value}" for name, value in said.items()]
    return shlex.join(["python", "-m", "experiments.train_experts", *flags])
