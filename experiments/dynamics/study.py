"""The steps of the study that measure along training, on real images and the reverse."""

from collections.abc import Iterator

from experiments.lab.steps import Flags, Step, Study

FLAGS: dict[str, Flags] = {
    "laptop": {
        "runs": 2,
        "probes": "accuracy@10,hessian_trace@30,hessian_eigenvalues@150,ntk@150,"
        "hessian_spectrum@300",
        "accuracy.images": 500,
        "hessian_trace.num_probes": 20,
        "hessian_eigenvalues.images": 50,
        "hessian_spectrum.images": 50,
        "ntk.images": 50,
    },
    "night": {
        "runs": 3,
        "probes": "accuracy@10,hessian_trace@20,hessian_eigenvalues@100,ntk@100",
        "accuracy.images": 1000,
        "hessian_trace.num_probes": 30,
        "hessian_eigenvalues.images": 100,
    },
    "published": {
        "runs": 1,
        "probes": "accuracy@20,hessian_trace@50,hessian_eigenvalues@150,ntk@150",
        "accuracy.images": 1000,
        "hessian_trace.num_probes": 20,
        "hessian_eigenvalues.images": 50,
        "ntk.images": 50,
    },
    "paper": {
        "runs": 1,
        "probes": "accuracy@1,hessian_trace@1,hessian_eigenvalues@50,ntk@50,"
        "hessian_spectrum@100",
        "accuracy.images": 10_000,
        "hessian_trace.num_probes": 100,
    },
}
REVERSE: dict[str, Flags] = {
    "laptop": {
        "probes": "accuracy@10,hessian_trace@60",
        "accuracy.images": 500,
        "hessian_trace.num_probes": 20,
    },
    "night": {
        "probes": "accuracy@10,hessian_trace@50",
        "accuracy.images": 1000,
        "hessian_trace.num_probes": 30,
    },
    "published": {
        "probes": "accuracy@20,hessian_trace@100",
        "accuracy.images": 1000,
        "hessian_trace.num_probes": 20,
    },
    "paper": {"probes": "accuracy@1,hessian_trace@10"},
}
MINUTES = {"laptop": 7.4, "night": 25, "published": 60}
REVERSE_MINUTES = {"laptop": 0.8, "night": 1.3, "published": 10}


def steps(study: Study) -> Iterator[Step]:
    """Yields steps that train on real images, and one that trains on a distilled set.

    There is a step of the first kind for the sets of each preprocessing and network.
    """
    for suffix, part in study.parts():
        flags = {**part.listed(), **part.network(), **FLAGS[study.scale]}
        sets = [*part.sets.values()]
        yield study.step(f"dynamics{suffix}", "dynamics", flags, MINUTES, sets=sets)
    label = "tm" if "tm" in study.sets else next(iter(study.sets))
    learned = study.sets[label]
    (own,) = (part for _, part in study.parts() if label in part.sets)
    reverse = {"artefacts": learned, "train_on": learned, "sets": "train,test"}
    flags = {**reverse, **own.network(), **REVERSE[study.scale]}
    yield study.step("dynamics_reverse", "dynamics", flags, REVERSE_MINUTES, sets=[learned])
