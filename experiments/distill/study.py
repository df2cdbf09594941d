"""The steps of the study that distil its sets, and train experts for them."""

from typing import Any

from experiments.lab.steps import Flags, MadeSets, ScaleName, Step, Study

METHODS = ("tm", "bptt", "gm", "dm")  # in the order of the steps
GROUP = "sets"

EXPERTS: dict[ScaleName, Flags] = {
    "laptop": {
        "experts": 8,
        "epochs": 12,
        "recipe.augment": "",
        "recipe.batch": 64,
        "recipe.lr": 0.02,
    },
    "night": {
        "experts": 4,
        "epochs": 4,
        "recipe.augment": "",
        "recipe.batch": 256,
        "recipe.lr": 0.02,
    },
    "paper": {"experts": 20, "epochs": 23},
}

# Settings of the sets in `experiments/artefacts`, or close to them.
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
    """Returns short settings, with `steps` at one image a class."""
    found: dict[tuple[str, int], Flags] = {}
    for (method, ipc), flags in _SHORT_DISTIL.items():
        more: dict[str, Any] = {"steps": steps} if ipc == 1 else {}
        if method == "tm":
            more["num_experts"] = experts
        found[method, ipc] = {**more, **flags}
    return found


# Scale -> method and images a class -> flags.
DISTIL: dict[ScaleName, dict[tuple[str, int], Flags]] = {
    "laptop": _short(200, 8),
    "night": _short(150, 4),
    "paper": {
        (method, 10): {"preset": "cifar10_ipc10", "protocol": "study"} for method in METHODS
    },
}

_PUBLISHED_WIDTH = 128  # at which the published preprocessing is used


def make_sets(study: Study) -> MadeSets:
    """Returns the steps that distil a set by each method and size, and the sets."""
    preprocess = "published" if study.width == _PUBLISHED_WIDTH else "normalise"
    shared = {"dataset": study.dataset, "preprocess": preprocess, **study.network()}
    experts = study.step(
        "experts", GROUP, {**shared, **EXPERTS[study.scale]}, {}, experiment="train_experts"
    )
    made = {
        ipc: {method: _distil(study, shared, method, ipc) for method in METHODS}
        for ipc in dict.fromkeys((study.ipc, study.single_ipc))
    }
    sets = {
        ipc: {
            method: step.output.with_name("distilled.npz")
            for method, step in by_method.items()
        }
        for ipc, by_method in made.items()
    }
    return MadeSets(
        [experts, *(step for by_method in made.values() for step in by_method.values())],
        sets[study.ipc],
        sets[study.single_ipc],
    )


def _distil(study: Study, shared: Flags, method: str, ipc: int) -> Step:
    name, experts = f"{method}_ipc{ipc}", study.root / "experts"
    by_experts = method == "tm"
    flags: dict[str, Any] = {"method": method, **shared, "ipc": ipc}
    flags |= DISTIL[study.scale][method, ipc]
    flags |= {"experts_dir": experts} if by_experts else {}
    return study.step(
        name,
        GROUP,
        flags,
        {},
        experiment="distill",
        inputs=[experts / "experts.json"] if by_experts else [],
        needs=["experts"] if by_experts else [],
        folder=f"sets/{name}",
    )
