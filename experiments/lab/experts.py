"""Experts, as those who train them and those who use them describe them."""

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
