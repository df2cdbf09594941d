"""All that is found of the attributes, and its record."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distilljax.analysis.statistics import ALPHA, spread_interval
from distilljax.io.environment import environment, peak_memory_bytes
from experiments.attributes.annotators import Annotations
from experiments.attributes.options import Config
from experiments.attributes.record import Coherence as CoherenceRecord
from experiments.attributes.record import (
    Counts,
    FeatureNetwork,
    Finding,
    Influence,
    Summary,
)
from experiments.attributes.subject import Subject
from experiments.attributes.tests import COHERENCE_DRAWS, Coherence, Enrichment, chance_p
from experiments.lab.data import describe_dataset

MOST_ROWS = 200  # of `enrichment` in summary.json


class Column(NamedTuple):
    """An attribute, among those of all annotators."""

    annotator: str
    name: str
    kind: str


class Found(NamedTuple):
    """All that is recorded and drawn."""

    tables: dict[str, Annotations]  # by annotator
    columns: list[Column]
    mean: np.ndarray  # f64[n, t], influence
    chosen: np.ndarray  # i[n, m], see `_positions`
    tested: Enrichment
    alike: Coherence
    network: FeatureNetwork


def summarise(
    config: Config, subject: Subject, found: Found, command: str, seconds: float
) -> Summary:
    """Returns the contents of `summary.json`."""
    tested = found.tested
    order = np.lexsort((-np.abs(tested.effects), tested.p))
    names = [subject.loaded.class_names[j] for j in subject.labels]
    return {
        "attributes": _counts(config, subject, tested),
        "coherence": coherence_record(found.alike, subject.labels),
        "enrichment": [
            _finding(i, tested, found.columns, names) for i in order[:MOST_ROWS].tolist()
        ],
        "annotators": {
            annotator: {
                name: {"kind": kind, "description": description}
                for name, kind, description in zip(*table[:3], strict=True)
            }
            for annotator, table in found.tables.items()
        },
        "artefact": subject.named.path,
        "method": subject.named.artefact.method,
        "label": subject.label,
        "influence": _influence(config, subject, found.mean, found.chosen),
        "top": config.top,
        "among": config.among,
        "network": found.network,
        "dataset": describe_dataset(subject.loaded),
        "command": command,
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }


def _counts(config: Config, subject: Subject, tested: Enrichment) -> Counts:
    found = int((tested.p_holm <= ALPHA).sum())
    found_q = int((tested.q <= ALPHA).sum())
    return {
        "tests": len(tested.p),
        "significant": found,
        "expected_by_chance": float(tested.chance_holm.mean()),
        "p": chance_p(found, tested.chance_holm),
        "p_fewer": chance_p(-found, -tested.chance_holm),
        "images_with_finding": len(np.unique(tested.images[tested.p_holm <= ALPHA])),
        "images": len(subject.labels),
        "permutations": config.permutations,
        "false_discovery_rate": {
            "significant": found_q,
            "expected_by_chance": float(tested.chance_q.mean()),
            "p": chance_p(found_q, tested.chance_q),
        },
    }


def coherence_record(alike: Coherence, labels: np.ndarray) -> CoherenceRecord:
    """Returns the record; groups of one class overlap, so its images are one draw."""
    beyond, classes = alike.similarity - alike.chance, labels[alike.images]
    of_classes = spread_interval(
        [beyond[classes == label].mean() for label in np.unique(classes)]
    )
    return {
        "mean": of_classes["mean"],
        "interval": of_classes["interval"],
        "classes": of_classes["seeds"],
        "images_above": int((alike.q < ALPHA).sum()),
        "p_values": alike.p.tolist(),
        "q_values": alike.q.tolist(),
        "images": alike.images.tolist(),
        "similarity": alike.similarity.tolist(),
        "chance": alike.chance.tolist(),
        "chance_std": alike.chance_std.tolist(),
        "draws": COHERENCE_DRAWS,
    }


def _influence(
    config: Config, subject: Subject, mean: np.ndarray, chosen: np.ndarray
) -> Influence:
    classes, labels = subject.classes, subject.labels
    own = np.take_along_axis(mean, np.maximum(chosen, 0), axis=1)[chosen >= 0]
    of_all = classes[np.argsort(-mean, axis=1)[:, : config.top]] == labels[:, None]
    return {
        "path": config.influence,
        "seeds": subject.influences.values.shape[0],
        "test_images": len(classes),
        "smallest_class": int(np.bincount(classes)[np.unique(labels)].min()),
        "mean_of_groups": float(own.mean()),
        "positive_in_groups": float((own > 0).mean()),
        "noise_floor": float(subject.influences.noise_floor.mean()),
        "own_class_among_top": float(of_all.mean()),
    }


def _finding(
    i: int, tested: Enrichment, columns: Sequence[Column], names: Sequence[str]
) -> Finding:
    """Returns the record of a test; `names` are the classes of the distilled images."""
    image = int(tested.images[i])
    annotator, attribute, kind = columns[tested.attributes[i]]
    found: Finding = {
        "image": image,
        "class": names[image],
        "attribute": attribute,
        "annotator": annotator,
        "base": float(tested.bases[i]),
        "effect": float(tested.effects[i]),
        "p": float(tested.p[i]),
        "p_holm": float(tested.p_holm[i]),
        "q": float(tested.q[i]),
    }
    found["rate" if kind == "boolean" else "mean"] = float(tested.rates[i])
    return found
