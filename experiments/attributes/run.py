r"""Ask what the real test images that a distilled image acts on have in common.

    python -m experiments.influence --artefact=runs/a/distilled.npz --workdir=runs/a/inf
    python -m experiments.attributes --influence=runs/a/inf
    python -m experiments.attributes --influence=runs/a/inf --annotators=measured,clip \
        --clip.path=clip-vit-base-patch32

Yang et al. 2024, sec. 5: for each distilled image a vision-language model names attributes
of the test images that leaving it out hurts most, and their rates are put beside base
rates; there is no code. The paper shows examples, no test.

Here the group of a distilled image is the `--top` test images of its own class with the
highest influence (mean over initialisations; none is trained again), and the base the
other test images of that class which the influences look at, so that to be a trouser is
no finding. Attributes come from annotators, see `experiments.annotators`: `measured`
(colour, light, background, edges, place and form of the object) and `clip`.

- Each attribute and distilled image is one two-sided test: Fisher's for a boolean one,
  Mann's and Whitney's else, with exact tails. The effect is the rank-biserial
  correlation, which for a boolean is the difference of the rates.
- p-values are corrected over all tests of the run, by Holm and by Benjamini and Hochberg.
- `--permutations` exchange the test images of each class, for all groups and attributes
  at once, which keeps what depends on what. They say how many findings chance makes, and
  how often as many as there are: the p of `attributes` in `summary.json`.
- `coherence`: the mean cosine of two members of a group, in the features of a network
  trained here on real images for `--epochs`, less that of random groups of the class; per
  image a permutation p, over images a 95 % interval of Student's t. Images of one class
  share their base, and all share the network: the interval is of distilled images, not of
  networks.

Expected, if images speak for visible groups: more findings than chance makes, and
coherence above 0. Found, one image a class by `tm`, 1,000 test images, two
initialisations: Fashion-MNIST 15 findings in 153 tests (0.01 by chance, p = 0.005, the
least of 200 permutations), coherence 0.092 (0.062 to 0.122), 9 of 10 images above chance;
CIFAR-10 10 in 296 (0.045, p = 0.005), 0.047 (0.024 to 0.070), 7 of 10. Airplanes in front
of a bright plain sky, frogs on a dark ground, tall dresses, sneakers that go up like
boots: the last are not typical but those that need a sneaker to be told from boots.

Limits: influence is a change of loss, large where another class is near, so a finding says
whom an image serves and not what it shows. A group is one network's width and a few
initialisations; attributes hang together, so findings are no list of separate causes.
Saliency takes the border for background. What CLIP sees in 32 pixels is guesswork.

`network.npz` and `annotations/` are kept, so that the same command resumes.
`attributes.npz` holds groups, values and all tests, `attributes.png` and `effects.png`
the pictures. CPU time, one core shared with other work: 48 s on Fashion-MNIST (8,000
training images), 3 min 21 s on CIFAR-10 (50,000), most of it training; 10 s once trained.
"""

import dataclasses
import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import data
from distilljax.analysis.statistics import spread_interval
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.core.inner import InnerState
from distilljax.io.environment import environment, peak_memory_bytes
from distilljax.io.files import replacing, write_json
from distilljax.training import expert
from distilljax.training.expert import Recipe
from distilljax.types import InputError, Model, Params, Transform
from experiments.annotators import ANNOTATORS, Annotations, Annotator, Clip, Measured
from experiments.annotators import clip as clip_annotator
from experiments.attributes.figures import attributed, effect_map
from experiments.attributes.groups import UNREADABLE, Influences, groups_of, read_influences
from experiments.attributes.tests import (
    ALPHA,
    COHERENCE_DRAWS,
    Enrichment,
    chance_p,
    coherence,
    enrichment,
)
from experiments.lab.data import describe_dataset, load_data_of
from experiments.lab.kept import digest
from experiments.lab.keys import fresh_key
from experiments.lab.networks import (
    ARCHITECTURES,
    OWN,
    Network,
    own_network,
    parse_architectures,
    scaled_network,
    sized_model,
)
from experiments.lab.options import parse_names
from experiments.lab.progress import SECONDS_BETWEEN_LINES, duration
from experiments.lab.sets import Named, displayable, load_artefacts, transform_digest
from experiments.lab.workdir import command_of, open_workdir, workdir_path

MODULE = "experiments.attributes"

MOST_ROWS = 200  # of `enrichment` in summary.json

PICTURED, NAMED = 8, 3  # test images and attributes beside a distilled image

CHUNK = 250  # images that the network looks at at a time

SECONDS_BETWEEN_SAVES = 30.0


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the experiment."""

    influence: str = option("", "A finished working directory of experiments.influence.")
    artefact: str | None = option(
        None, "Where the distilled set lies now; none: where that run found it."
    )
    dataset: str | None = option(None, "Where its data lie now; none: where they did.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")
    top: int = option(20, "Most influenced test images that make a group.", low=2)
    among: Literal["class", "all"] = option(
        "class",
        "Groups are the first --top of the image's class, or those of its class among the "
        "first --top of all.",
    )
    annotators: str = option(
        "measured", f"Who names attributes, with commas: {', '.join(ANNOTATORS)}."
    )
    clip: clip_annotator.Config = option(
        clip_annotator.Config(), "The annotator clip, where it is among --annotators."
    )
    permutations: int = option(
        200, "Random relabellings that say what chance finds.", low=19
    )
    model: str = option(
        OWN,
        "Whose features are compared, trained on real images: own, "
        f"{', '.join(ARCHITECTURES)}.",
    )
    width_scale: float = option(1.0, "Times the width of --model, if not own.", above=0)
    epochs: int = option(3, "Of its training.", low=1)
    recipe: Recipe = option(Recipe(momentum=0.9, augment=""), "How it is trained.")
    shown: int = option(10, "Distilled images in the picture.", low=1)
    seed: int = option(0, "Settles everything random.", low=0, high=2**31 - 1)
    workdir: str | None = option(
        None, "Where the results go; none: a folder under runs/ named by the settings."
    )


class _Problem(NamedTuple):
    """What is looked at."""

    label: str
    named: Named
    loaded: data.Dataset
    influences: Influences
    images: np.ndarray  # u8[t, h, w, c]
    classes: np.ndarray  # i[t]
    labels: np.ndarray  # i[n], of the distilled images


def _prepare(config: Config) -> _Problem:
    if not config.influence:
        reason = "name a finished working directory of experiments.influence"
        raise FieldError("influence", "", reason)
    found = read_influences(pathlib.Path(config.influence).expanduser())
    path = config.artefact or found.artefact
    ((label, named),) = load_artefacts(path, "artefact").items()
    loaded = load_data_of(named, config.dataset or found.dataset, config.data_dir)
    num = named.artefact.distilled.label_logits.shape[0]
    if loaded.fingerprint != found.fingerprint:
        raise InputError(
            f"the influences in {config.influence} are of other data than {loaded.name} "
            "(the SHA-256 differs); give --dataset of those that they are of"
        )
    digest = digest(
        [loaded.fingerprint, transform_digest(named.artefact.transform)],
        named.artefact.distilled,
    )
    if found.values.shape[1] != num or found.digest not in (None, digest):
        raise InputError(
            f"the influences in {config.influence} are of another set than {path} holds; "
            "name theirs with --artefact, or run experiments.influence on this one"
        )
    if found.positions.min() < 0 or found.positions.max() >= len(loaded.test.labels):
        raise InputError(
            f"the influences in {config.influence} are damaged: their positions are "
            f"outside the test set of {loaded.name}; run experiments.influence again"
        )
    classes = loaded.test.labels[found.positions]
    labels = np.asarray(distilled_set.hard_labels(named.artefact.distilled))
    fewest = min(int((classes == j).sum()) for j in np.unique(labels))
    if config.among == "class" and config.top >= fewest:
        reason = (
            f"the influences look at {fewest} test images of the smallest class, which "
            "leaves none to compare with; choose fewer, or give experiments.influence more "
            "--test_images"
        )
        raise FieldError("top", config.top, reason)
    images = loaded.test.images[found.positions]
    return _Problem(label, named, loaded, found, images, classes, labels)


def _annotators(config: Config) -> list[Annotator]:
    names = parse_names(config.annotators, "annotators")
    if not names or (unknown := [name for name in names if name not in ANNOTATORS]):
        what = f"there is no annotator {unknown[0]!r}" if names else "name at least one"
        known = ", ".join(ANNOTATORS)
        raise FieldError("annotators", config.annotators, f"{what}; known are {known}")
    if "clip" not in names and config.clip != clip_annotator.Config():
        reason = "--clip.* options have no meaning without clip, name it too"
        raise FieldError("annotators", config.annotators, reason)
    return [Measured() if name == "measured" else Clip(config.clip) for name in names]


def _kept(path: pathlib.Path, identity: str) -> dict[str, np.ndarray] | None:
    """What a file holds, if it holds that; one that cannot be read is made again."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        return arrays if str(arrays["identity"]) == identity else None
    except UNREADABLE as error:
        print(f"{path} cannot be read ({error}) and is made again", file=sys.stderr)
        return None


def _keep(path: pathlib.Path, identity: str, **arrays: Any) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, identity=np.array(identity), **arrays)


def _annotated(
    annotator: Annotator, images: np.ndarray, workdir: pathlib.Path
) -> Annotations:
    """Its table, kept in `annotations/`."""
    path = workdir / "annotations" / f"{annotator.name}.npz"
    path.parent.mkdir(exist_ok=True)
    identity = digest([annotator.identity, list(images.shape)], [images])
    held = _kept(path, identity)
    if held is None:
        print(f"annotating by {annotator.name}", file=sys.stderr, flush=True)
        table = annotator(images)
        _keep(path, identity, **table._asdict())
        return table
    names, kinds, descriptions = (
        tuple(held[name].tolist()) for name in ("names", "kinds", "descriptions")
    )
    return Annotations(names, kinds, descriptions, held["values"])


class _Trained(NamedTuple):
    """A network as its file holds it."""

    epoch: int  # that it has been through
    params: np.ndarray  # f32[p], see `parameters.flatten`
    optimizer: np.ndarray  # f32[q], empty once it is trained
    losses: np.ndarray  # f64[epoch], the mean training loss of each
    seconds: float  # of training


def _train(
    config: Config,
    network: Network,
    model: Model,
    problem: _Problem,
    workdir: pathlib.Path,
) -> _Trained:
    """The network whose features are compared, kept in `network.npz`.

    Raises:
      InputError: training that diverges.
    """
    loaded, transform = problem.loaded, problem.named.artefact.transform
    recipe, key, path = (
        config.recipe,
        fresh_key(config.seed),
        workdir / "network.npz",
    )
    identity = digest(
        [
            loaded.fingerprint,
            transform_digest(transform),
            network.described(),
            recipe.to_dict(),
            config.epochs,
            config.seed,
        ]
    )
    held = _kept(path, identity)
    kept = _Trained(0, np.zeros(0), np.zeros(0), np.zeros(0), 0.0)
    if held is not None:
        kept = _Trained(
            int(held["epoch"]),
            held["params"],
            held["optimizer"],
            held["losses"],
            float(held["seconds"]),
        )
    if kept.epoch == config.epochs:
        return kept
    real = data.on_device(loaded.train, transform, loaded.num_classes)

    @jax.jit
    def advance(key: Any, state: InnerState, real: Any) -> tuple[InnerState, jax.Array]:
        return expert.epoch(key, model, real, recipe, state)

    begin = jax.jit(lambda key: expert.init(key, model, recipe))
    state = begin(expert.epoch_key(key, 0, 0))
    if kept.epoch:
        print(f"{network.name} goes on after epoch {kept.epoch}")
        restore = ravel_pytree(state.opt_state)[1]
        state = InnerState(
            parameters.unflatten(model)(jnp.asarray(kept.params)),
            restore(jnp.asarray(kept.optimizer)),
        )
    losses, seconds, saved = kept.losses.tolist(), kept.seconds, time.monotonic()
    spoke = -math.inf
    for epoch in range(kept.epoch + 1, config.epochs + 1):
        began = time.perf_counter()
        state, loss = advance(expert.epoch_key(key, 0, epoch), state, real)
        losses.append(float(loss))
        seconds += time.perf_counter() - began
        if not np.isfinite(losses[-1]):
            raise InputError(
                f"{network.name} at epoch {epoch} has a training loss of {losses[-1]}; "
                "lower its learning rate, --recipe.lr"
            )
        last = epoch == config.epochs
        if last or time.monotonic() - spoke > SECONDS_BETWEEN_LINES:
            spoke = time.monotonic()
            left = duration(seconds / epoch * (config.epochs - epoch))
            print(
                f"epoch {epoch}/{config.epochs}  loss {losses[-1]:.3g}  about {left} left",
                file=sys.stderr,
                flush=True,
            )
        if last or time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
            saved = time.monotonic()
            optimizer = ravel_pytree(() if last else state.opt_state)[0]
            params = np.asarray(parameters.flatten(state.params))
            kept = _Trained(epoch, params, np.asarray(optimizer), np.array(losses), seconds)
            _keep(path, identity, **kept._asdict())
    return kept


def _look(
    model: Model, params: Params, images: np.ndarray, transform: Transform
) -> tuple[np.ndarray, np.ndarray]:
    """u8[t, h, w, c] -> input of the last layer f32[t, d], logits f32[t, k]."""

    @jax.jit
    def compute(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = transform(images)
        return model.features(params, seen), model.apply(params, seen)

    found = []
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        padded = np.pad(part, ((0, CHUNK - len(part)), *((0, 0),) * 3))
        found.append([np.asarray(x)[: len(part)] for x in compute(params, padded)])
    features, logits = zip(*found, strict=True)
    return np.concatenate(features), np.concatenate(logits)


def run(config: Config) -> dict[str, Any]:
    """Annotates, trains, compares, draws; returns what `summary.json` holds.

    Raises:
      InputError: options, influences, an artefact, data, an annotator or a working
        directory that cannot be used; training that diverges.
    """
    parse_architectures(config.model, "model")
    problem = _prepare(config)
    workdir = workdir_path(MODULE, config, problem.label)
    with open_workdir(workdir, MODULE, config):
        summary = _run(config, problem, workdir)
    _show(summary, workdir)
    return summary


def _network(config: Config, problem: _Problem) -> Network:
    if config.model == OWN:
        if config.width_scale != 1:
            reason = "own has the width that the set was made with; name another --model"
            raise FieldError("width_scale", config.width_scale, reason)
        return own_network(problem.label, problem.named.artefact, "model")
    return scaled_network(config.model, config.width_scale)


def _run(config: Config, problem: _Problem, workdir: pathlib.Path) -> dict[str, Any]:
    began = time.perf_counter()
    label, named, loaded, influences, images, classes, labels = problem
    network = _network(config, problem)
    model, num_parameters = sized_model(network, loaded, "model")
    annotators = _annotators(config)
    mean = influences.values.mean(axis=0, dtype=np.float64)
    groups = groups_of(mean, labels, classes, config.top, config.among)
    if sum(len(group.members) > 1 for group in groups) < 2:
        reason = (
            "fewer than two distilled images have two test images of their class among the "
            "first; give --among=class, or a larger --top"
        )
        raise FieldError("among", config.among, reason)
    tables = {one.name: _annotated(one, images, workdir) for one in annotators}
    columns = [
        (annotator, name, kind)
        for annotator, table in tables.items()
        for name, kind in zip(table.names, table.kinds, strict=True)
    ]
    values = np.concatenate([table.values for table in tables.values()], axis=1)
    trained = _train(config, network, model, problem, workdir)
    features, logits = _look(
        model,
        parameters.unflatten(model)(jnp.asarray(trained.params)),
        images,
        named.artefact.transform,
    )

    tests_rng, groups_rng = np.random.default_rng(config.seed).spawn(2)
    tested = enrichment(tests_rng, values, classes, groups, config.permutations)
    alike = coherence(groups_rng, features, classes, groups)
    found = int((tested.p_holm <= ALPHA).sum())
    found_q = int((tested.q <= ALPHA).sum())

    size = max(len(group.members) for group in groups)
    chosen = np.full((len(groups), size), -1)
    for row, (class_, members) in zip(chosen, groups, strict=True):
        row[: len(members)] = np.flatnonzero(classes == class_)[members]
    own = np.take_along_axis(mean, np.maximum(chosen, 0), axis=1)[chosen >= 0]
    of_all = classes[np.argsort(-mean, axis=1)[:, : config.top]] == labels[:, None]
    with replacing(workdir / "attributes.npz") as temporary, temporary.open("wb") as file:
        arrays = {f"test_{name}": x for name, x in tested._asdict().items()}
        arrays |= {f"coherence_{name}": x for name, x in alike._asdict().items()}
        positions = np.where(chosen >= 0, influences.positions[chosen], -1)
        np.savez(file, groups=positions, values=values, features=features, **arrays)

    order = np.lexsort((-np.abs(tested.effects), tested.p))
    rows = [
        _row(i, tested, columns, [loaded.class_names[j] for j in labels])
        for i in order[:MOST_ROWS].tolist()
    ]
    beyond = spread_interval(alike.similarity - alike.chance)
    summary: dict[str, Any] = {
        "attributes": {
            "tests": len(tested.p),
            "significant": found,
            "expected_by_chance": float(tested.chance_holm.mean()),
            "p": chance_p(found, tested.chance_holm),
            "images_with_finding": len(np.unique(tested.images[tested.p_holm <= ALPHA])),
            "images": len(groups),
            "permutations": config.permutations,
            "false_discovery_rate": {
                "significant": found_q,
                "expected_by_chance": float(tested.chance_q.mean()),
                "p": chance_p(found_q, tested.chance_q),
            },
        },
        "coherence": {
            "mean": beyond["mean"],
            "interval": beyond["interval"],
            "images_above": int((alike.q < ALPHA).sum()),
            "p_values": alike.p.tolist(),
            "q_values": alike.q.tolist(),
            "images": alike.images.tolist(),
            "similarity": alike.similarity.tolist(),
            "chance": alike.chance.tolist(),
            "chance_std": alike.chance_std.tolist(),
            "draws": COHERENCE_DRAWS,
        },
        "enrichment": rows,
        "annotators": {
            annotator: {
                name: {"kind": kind, "description": description}
                for name, kind, description in zip(*table[:3], strict=True)
            }
            for annotator, table in tables.items()
        },
        "artefact": named.path,
        "method": named.artefact.method,
        "label": label,
        "influence": {
            "path": config.influence,
            "seeds": influences.values.shape[0],
            "test_images": len(classes),
            "smallest_class": int(np.bincount(classes)[np.unique(labels)].min()),
            "mean_of_groups": float(own.mean()),
            "positive_in_groups": float((own > 0).mean()),
            "noise_floor": float(influences.noise_floor.mean()),
            "own_class_among_top": float(of_all.mean()),
        },
        "top": config.top,
        "among": config.among,
        "network": {
            **network.described(),
            "parameters": num_parameters,
            "recipe": config.recipe.to_dict(),
            "epochs": config.epochs,
            "training_loss": float(trained.losses[-1]),
            "accuracy": float((logits.argmax(axis=1) == classes).mean()),
            "seconds": trained.seconds,
        },
        "dataset": describe_dataset(loaded),
        "command": command_of(MODULE, config),
        "seconds": time.perf_counter() - began,
        "peak_memory_bytes": peak_memory_bytes(),
        "environment": environment(),
    }
    _draw(config, problem, tested, [name for _, name, _ in columns], chosen, workdir)
    write_json(workdir / "summary.json", summary)
    return json.loads(json.dumps(summary))


def _row(
    i: int,
    tested: Enrichment,
    columns: Sequence[tuple[str, str, str]],
    names: Sequence[str],
) -> dict[str, Any]:
    """A test, for `enrichment` in summary.json."""
    image = int(tested.images[i])
    annotator, attribute, kind = columns[tested.attributes[i]]
    return {
        "image": image,
        "class": names[image],
        "attribute": attribute,
        "annotator": annotator,
        "rate" if kind == "boolean" else "mean": float(tested.rates[i]),
        "base": float(tested.bases[i]),
        "effect": float(tested.effects[i]),
        "p": float(tested.p[i]),
        "p_holm": float(tested.p_holm[i]),
        "q": float(tested.q[i]),
    }


def _draw(
    config: Config,
    problem: _Problem,
    tested: Enrichment,
    names: Sequence[str],
    chosen: np.ndarray,
    workdir: pathlib.Path,
) -> None:
    _, (_, artefact), loaded, _, images, _, labels = problem
    num = len(labels)
    shown = np.unique(np.linspace(0, num - 1, min(config.shown, num)).round().astype(int))
    pictures = displayable(artefact.transform, artefact.distilled.images)
    texts: list[list[tuple[str, bool]]] = []
    for image in shown:
        (of_image,) = np.nonzero(tested.images == image)
        strongest = of_image[np.argsort(tested.p[of_image], kind="stable")][:NAMED]
        texts.append(
            [
                (
                    f"{names[tested.attributes[i]]} {tested.rates[i]:.3g} against "
                    f"{tested.bases[i]:.3g}: {tested.effects[i]:+.2f}, "
                    f"p {tested.p_holm[i]:.2g}",
                    bool(tested.p_holm[i] <= ALPHA),
                )
                for i in strongest
            ]
        )
    of = f"({artefact.method}, {loaded.name})"
    attributed(
        workdir / "attributes.png",
        pictures[shown],
        [images[row[row >= 0][:PICTURED]] / 255.0 for row in chosen[shown]],
        [loaded.class_names[j] for j in labels[shown]],
        texts,
        f"Test images that miss each image most, and what tells them from others {of}",
        header="mean or rate against the rest of the class: effect, p (Holm)",
    )
    effects = np.full((num, len(names)), np.nan)
    marks = np.zeros((num, len(names)), int)
    effects[tested.images, tested.attributes] = tested.effects
    marks[tested.images, tested.attributes] = (tested.q <= ALPHA).astype(int) + (
        tested.p_holm <= ALPHA
    )
    effect_map(
        workdir / "effects.png",
        effects,
        marks,
        [loaded.class_names[j] for j in labels],
        names,
        f"Attributes of the {config.top} most influenced, against their class {of}",
        marked=(f"q at most {ALPHA:g}", f"p at most {ALPHA:g} (Holm)"),
        unknown="no test: the class is uniform",
    )


def _show(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
    found, alike = summary["attributes"], summary["coherence"]
    table = Table(
        title=f"What the most influenced images of {summary['label']} share",
        title_justify="left",
        caption="Effect: P(in the group > beside it) - P(<); of rates their difference.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in ("image", "attribute", "rate or mean", "base", "effect", "p (Holm)", "q"):
        left = column in ("image", "attribute")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for row in summary["enrichment"][:12]:
        numbers = (row.get("rate", row.get("mean")), row["base"])
        table.add_row(
            f"{row['image']} {row['class']}",
            row["attribute"],
            *(f"{x:.3g}" for x in numbers),
            f"{row['effect']:+.2f}",
            f"{row['p_holm']:.2g}",
            f"{row['q']:.2g}",
        )
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 110)
    console.print(table)
    print(
        f"{found['significant']} of {found['tests']} tests significant (Holm), chance "
        f"finds {found['expected_by_chance']:.2g}: p = {found['p']:.2g}; "
        f"{found['images_with_finding']} of {found['images']} images have a finding"
    )
    low, high = alike["interval"]
    print(
        f"Coherence beyond chance {alike['mean']:.3f} ({low:.3f} to {high:.3f}); "
        f"{alike['images_above']} of {len(alike['images'])} images above"
    )
    print(
        f"{duration(summary['seconds'])}. summary.json, attributes.npz, attributes.png and "
        f"effects.png lie in {workdir}"
    )


def main(config: Config) -> None:
    """Entry of the command line."""
    run(config)
