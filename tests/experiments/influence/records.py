"""Made-up records of `experiments.influence`."""

import copy

import numpy as np

from distilljax.analysis.statistics import spread
from experiments.influence.record import Correlation, Estimated, Summary
from experiments.lab.claims import Record
from tests.experiments.made_up import COMMON


def about(mean, width, num):
    return mean + np.linspace(-width, width, num)


def estimated(mean, width, seeds, solved) -> Estimated:
    values = spread(about(mean, width, seeds))
    correlation: Correlation = {**values, "over_images_std": 0.1, "undefined": 0}
    return {
        "with_the_same_initialisation": correlation,
        "with_the_mean_over_initialisations": copy.deepcopy(correlation),
        "solved": [solved] * seeds,
    }


def record(
    correlation=0.4,
    error=0.05,
    own=0.9,
    over=3.0,
    told=0.5,
    method="tm",
    seeds=5,
    width=0.05,
):
    """A set of ten images a class.

    Args:
      correlation: between seeds, with its standard error `error`.
      own: share of the nine most influenced images of the own class.
      over: influence over noise.
      told: correlation of both approximations with leave-one-out, within `width`.
      method: of the set.
      seeds: number of initialisations.
    """
    systems = {
        "damping": 0.03,
        "converged": 100,
        "most_iterations": 12,
        "largest_residual": 7e-5,
    }
    summary: Summary = {
        "images": 100,
        "test_images": 1000,
        "networks": 505,
        "accuracy_on_all": spread(about(0.5, 0.01, seeds)),
        "accuracy_without_one": 0.49,
        "mean_absolute_influence": 0.9,
        "mean_noise_floor": 0.3,
        "over_noise": {
            "value": over,
            "standard_error": 0.1 if seeds > 2 else None,
            "of": "influence over noise",
            "seeds": seeds,
        },
        "share_above_two_standard_errors": 0.3,
        "reliability": {
            "value": correlation,
            "standard_error": error,
            "of": "rank correlation of influences between seeds",
            "seeds": seeds,
        },
        "same_class_among_top_nine": own,
        "estimates": {
            "gauss_newton": estimated(told, width, seeds, systems),
            "ntk": estimated(told, width, seeds, {"ridge": 0.01}),
        },
        "most_influenced": [list(range(9))] * 100,
        "artefact": {"path": f"sets/{method}_ipc10/distilled.npz", "method": method},
        "parameters": 24_714,
        "protocol": "study",
        "seconds": 60.0,
        **copy.deepcopy(COMMON),
    }
    folder = f"records/influence_{method}"
    command = "python -m experiments.influence --seed=0"
    return Record("influence", folder, {"seed": 0}, command, summary)
