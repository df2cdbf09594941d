"""TODO."""

from collections.abc import Mapping
from typing import Any, NamedTuple

METHODS = ("tm", "bptt", "gm", "dm")

Flags = Mapping[str, Any]


class Scale(NamedTuple):
    """How large the experiments are. Flags by step."""

    dataset: str
    ready: bool  # whether the sets are those of `experiments/artefacts` by default
    width: int  # of the network that sets are made with
    ipc: int  # images a class
    influence_ipc: int  # of the sets whose single images are left out
    flags: Mapping[str, Flags]
    experts: Flags
    distil: Mapping[tuple[str, int], Flags]  # method, images a class -> flags
    minutes: Mapping[str, float]  # step -> about what it takes, for the time left


_SHORT = {"whole_epochs": 0, "score_every": 25}

_SHORT_DISTIL: dict[tuple[str, int], Flags] = {
    ("tm", 1): _SHORT
    | {
        "tm.expert_epochs": 1,
        "tm.max_start": 2,
        "tm.augment": "",
        "tm.lr_high": 0.2,
        "tm.outer": "adam",
        "tm.image_lr": 0.1,
    },
    ("tm", 10): _SHORT
    | {
        "steps": 100,
        "tm.expert_epochs": 1,
        "tm.max_start": 3,
        "tm.student_batch": 50,
        "tm.augment": "",
        "tm.inner_lr": 0.05,
        "tm.lr_high": 0.5,
        "tm.outer": "adam",
        "tm.image_lr": 0.05,
    },
    ("bptt", 1): {"whole_epochs": 0},
    ("bptt", 10): _SHORT
    | {
        "steps": 100,
        "bptt.unroll": 60,
        "bptt.window": 15,
        "bptt.random_window": True,
        "bptt.inner_batch": 50,
        "bptt.image_lr": 0.05,
    },
    ("gm", 1): _SHORT | {"gm.real_batch": 64, "gm.image_lr": 3.0},
    ("gm", 10): _SHORT
    | {
        "steps": 80,
        "gm.real_batch": 64,
        "gm.image_lr": 3.0,
        "gm.outer_loop": 10,
        "gm.inner_loop": 10,
    },
    ("dm", 1): _SHORT | {"dm.real_batch": 64, "dm.augment": ""},
    ("dm", 10): _SHORT | {"steps": 150, "dm.real_batch": 128, "dm.image_lr": 10.0},
}


def _short(steps: int, experts: int) -> dict[tuple[str, int], Flags]:
    """Settings of the sets in `experiments/artefacts`, or close to them."""
    found: dict[tuple[str, int], Flags] = {}
    for (method, ipc), flags in _SHORT_DISTIL.items():
        more: dict[str, Any] = {"steps": steps} if ipc == 1 else {}
        if method == "tm":
            more["num_experts"] = experts
        found[method, ipc] = {**more, **flags}
    return found


SCALES = {
    "laptop": Scale(
        dataset="embedded",
        ready=True,
        width=32,
        ipc=10,
        influence_ipc=1,
        flags={
            "recognition": {
                "models": "convnet,convnet16",
                "width_scale": "0.25,1",
                "epochs": "3",
                "map_images": 1000,
            },
            "mixing": {"real_per_class": "0,5", "seeds": 3},
            "agreement": {
                # Fewer images in all than CIFAR-10 has, so larger shares of them.
                "subset_networks": 24,
                "subset_low": 0.02,
                "subset_high": 0.28,
                "subset_epochs": 12,
                "batch": 128,
                "early_runs": 6,
                "early_iterations": 160,
                "early_every": 4,
                "test_images": 500,
                "least": 10,
                "tolerance": 0.03,
                "seeds": 3,
            },
            "dynamics": {
                "runs": 2,
                "probes": "accuracy@10,hessian_trace@30,hessian_eigenvalues@150,ntk@150,"
                "hessian_spectrum@300",
                "accuracy.images": 500,
                "hessian_trace.num_probes": 20,
                "hessian_eigenvalues.images": 50,
                "hessian_spectrum.images": 50,
                "ntk.images": 50,
            },
            "dynamics_reverse": {
                "probes": "accuracy@10,hessian_trace@60",
                "accuracy.images": 500,
                "hessian_trace.num_probes": 20,
            },
            "influence": {"seeds": 3, "test_images": 500},
            "attributes": {},
        },
        experts={
            "experts": 8,
            "epochs": 12,
            "recipe.augment": "",
            "recipe.batch": 64,
            "recipe.lr": 0.02,
        },
        distil=_short(200, 8),
        minutes={
            "recognition": 1,
            "mixing": 5.7,
            "agreement": 5.5,
            "dynamics": 7.4,
            "dynamics_reverse": 0.8,
            "influence": 1.2,
            "attributes": 0.3,
            "report": 0.1,
        },
    ),
    "night": Scale(
        dataset="cifar10",
        ready=True,
        width=32,
        ipc=10,
        influence_ipc=1,
        flags={
            "recognition": {
                "models": "convnet,convnet16",
                "width_scale": "0.25,1",
                "epochs": "4",
                "seeds": 5,
            },
            "mixing": {"real_per_class": "0,2,10"},
            "agreement": {
                "subset_networks": 100,
                "subset_epochs": 30,
                "early_runs": 8,
                "early_iterations": 196,
                "early_every": 2,
                "test_images": 1000,
                "seeds": 5,
            },
            "dynamics": {
                "runs": 3,
                "probes": "accuracy@10,hessian_trace@20,hessian_eigenvalues@100,ntk@100",
                "accuracy.images": 1000,
                "hessian_trace.num_probes": 30,
                "hessian_eigenvalues.images": 100,
            },
            "dynamics_reverse": {
                "probes": "accuracy@10,hessian_trace@50",
                "accuracy.images": 1000,
                "hessian_trace.num_probes": 30,
            },
            "influence": {"seeds": 5, "test_images": 1000},
            "attributes": {},
        },
        experts={
            "experts": 4,
            "epochs": 4,
            "recipe.augment": "",
            "recipe.batch": 256,
            "recipe.lr": 0.02,
        },
        distil=_short(150, 4),
        minutes={
            "recognition": 11,
            "mixing": 24,
            "agreement": 42,
            "dynamics": 25,
            "dynamics_reverse": 1.3,
            "influence": 2.9,
            "attributes": 1.1,
            "report": 0.2,
        },
    ),
    "paper": Scale(
        dataset="cifar10",
        ready=False,
        width=128,
        ipc=10,
        influence_ipc=10,
        flags={
            "recognition": {},
            "mixing": {"chunk": "none"},
            "agreement": {"seeds": 5},
            "dynamics": {
                "runs": 1,
                "probes": "accuracy@1,hessian_trace@1,hessian_eigenvalues@50,ntk@50,"
                "hessian_spectrum@100",
                "accuracy.images": 10_000,
                "hessian_trace.num_probes": 100,
            },
            "dynamics_reverse": {"probes": "accuracy@1,hessian_trace@10"},
            "influence": {"test_images": 10_000},
            "attributes": {},
        },
        experts={"experts": 20, "epochs": 23},
        distil={
            (method, 10): {"preset": "cifar10_ipc10", "protocol": "study"}
            for method in ("tm", "bptt", "gm", "dm")
        },
        minutes={},
    ),
}
