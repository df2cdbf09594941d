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
no finding. Attributes come from annotators, see `experiments.attributes.annotators`:
`measured` (colour, light, background, edges, place and form of the object) and `clip`.

- Each attribute and distilled image is one two-sided test: Fisher's for a boolean one,
  Mann's and Whitney's else, with exact tails. The effect is the rank-biserial
  correlation, which for a boolean is the difference of the rates.
- p-values are corrected over all tests of the run, by Holm and by Benjamini and Hochberg.
- `--permutations` exchange the test images of each class, for all groups and attributes
  at once, which keeps all dependence among tests. They give the number of findings by
  chance, and how often chance makes as many as there are: the p of `attributes` in
  `summary.json`.
- `coherence`: the mean cosine of two members of a group, in the features of a network
  trained here on real images for `--epochs`, less that of random groups of the class; per
  image a permutation p, over classes a 95 % interval of Student's t of their means. Groups
  of one class overlap and share their base, so its images are one draw; all share the
  network, and the interval is not one of networks.

Expected, if images speak for visible groups: more findings than chance makes, and
coherence above 0. Found, one image a class by `tm` (`results/study_embedded`, 500 test
images and three initialisations; `results/study_cifar10`, 1,000 and five): embedded
Fashion-MNIST 10 findings in 148 tests (0.085 by chance, p = 0.005, the least of 200
permutations), coherence 0.071 (0.051 to 0.091), 9 of 10 images above chance; CIFAR-10 8 in
296 (0.05, p = 0.005), 0.045 (0.022 to 0.068), 7 of 10. Findings are airplanes in front of a
bright plain sky, frogs on a dark ground, tall dresses, dark ankle boots.

Limits: influence is a change of loss, large where another class is near, so a finding says
which test images an image serves and not what it shows. A group depends on one width and a
few initialisations; attributes are correlated, so findings are no list of separate causes.
Saliency takes the border for background. CLIP is unreliable on images of 32 pixels.

`network.npz` and `annotations/` are kept, so that the same command resumes.
`attributes.npz` holds groups, values and all tests, `attributes.png` and `effects.png`
the pictures. CPU time, one core shared with other work: 48 s on Fashion-MNIST (8,000
training images), 3 min 21 s on CIFAR-10 (50,000), most of it training; 10 s once trained.
"""

import pathlib
import sys
import time
from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from distilljax import data, launch
from distilljax.analysis.statistics import ALPHA
from distilljax.config import FieldError
from distilljax.core import parameters
from distilljax.types import Array, Model, Params, Transform
from experiments.attributes.annotators import Annotations, Annotator
from experiments.attributes.figures import attributed, effect_map
from experiments.attributes.groups import Group, groups_of
from experiments.attributes.options import Config, make_annotators
from experiments.attributes.record import (
    FeatureNetwork,
    Summary,
    rate_or_mean,
)
from experiments.attributes.subject import Subject, load_subject
from experiments.attributes.summary import Column, Found, summarise
from experiments.attributes.tests import (
    coherence,
    enrichment,
)
from experiments.lab import networks
from experiments.lab.kept import Arrays, digest, write_arrays
from experiments.lab.options import OWN
from experiments.lab.progress import duration
from experiments.lab.records import write_summary
from experiments.lab.sets import displayable
from experiments.lab.terminal import new_table, show_table
from experiments.lab.training import EpochTrainer, Trained, plan_net
from experiments.lab.workdir import command_of, open_workdir, workdir_path

NAME = "experiments.attributes"

PICTURED, NAMED = 8, 3  # test images and attributes beside a distilled image

CHUNK = 250  # evaluation batch size of the network


def run(config: Config) -> Summary:
    """Annotates, trains, compares, draws; returns the contents of `summary.json`.

    Raises:
      InputError: options, influences, an artefact, data, an annotator or a working
        directory that cannot be used; training that diverges.
    """
    if len(networks.parse_architectures(config.model, "model")) > 1:
        raise FieldError("model", config.model, "name one")
    subject = load_subject(config)
    workdir = workdir_path(NAME, config, subject.label)
    with open_workdir(workdir, NAME, config):
        summary = _run(config, subject, workdir)
    _show(summary, workdir)
    return summary


def _run(config: Config, subject: Subject, workdir: pathlib.Path) -> Summary:
    began = time.perf_counter()
    network = _network(config, subject)
    model, num_parameters = networks.sized_model(network, subject.loaded, "model")
    annotators = make_annotators(config)
    classes = subject.classes
    mean = subject.influences.values.mean(axis=0, dtype=np.float64)
    groups = groups_of(mean, subject.labels, classes, config.top, config.among)
    if len({group.label for group in groups if len(group.members) > 1}) < 2:
        reason = (
            "in fewer than two classes has a distilled image two test images of its class "
            "among the first; give --among=class, or a larger --top"
        )
        raise FieldError("among", config.among, reason)
    pieces = Arrays(workdir / "annotations")
    tables = {one.name: _annotated(one, subject.images, pieces) for one in annotators}
    columns = [
        Column(annotator, name, kind)
        for annotator, table in tables.items()
        for name, kind in zip(table.names, table.kinds, strict=True)
    ]
    values = np.concatenate([table.values for table in tables.values()], axis=1)
    trained = _train(config, subject, network, model, num_parameters, workdir)
    features, logits = _look(
        model,
        parameters.unflatten(model)(jnp.asarray(trained.params)),
        subject.images,
        subject.named.artefact.transform,
    )

    tests_rng, groups_rng = np.random.default_rng(config.seed).spawn(2)
    tested = enrichment(tests_rng, values, classes, groups, config.permutations)
    alike = coherence(groups_rng, features, classes, groups)
    chosen = _positions(groups, classes)
    write_arrays(
        workdir / "attributes.npz",
        subject.influences.identity,
        groups=np.where(chosen >= 0, subject.influences.positions[chosen], -1),
        values=values,
        features=features,
        **{f"test_{name}": x for name, x in tested._asdict().items()},
        **{f"coherence_{name}": x for name, x in alike._asdict().items()},
    )
    about_network = {
        **network.described(),
        "parameters": num_parameters,
        "recipe": config.recipe.to_dict(),
        "epochs": config.epochs,
        "training_loss": float(trained.losses[-1]),
        "accuracy": float((logits.argmax(axis=1) == classes).mean()),
        "seconds": trained.seconds,
    }
    found = Found(
        tables, columns, mean, chosen, tested, alike, cast(FeatureNetwork, about_network)
    )
    _draw(config, subject, found, workdir)
    command, seconds = command_of(NAME, config), time.perf_counter() - began
    summary = summarise(config, subject, found, command, seconds)
    return write_summary(workdir, Summary, summary)


def _network(config: Config, subject: Subject) -> networks.Network:
    if config.model == OWN:
        networks.check_width_scale(config, [OWN])
        return networks.own_network(subject.label, subject.named.artefact, "model")
    return networks.scaled_network(config.model, config.width_scale)


def _annotated(annotator: Annotator, images: np.ndarray, pieces: Arrays) -> Annotations:
    """Returns the table of an annotator, and keeps it."""
    identity = digest([annotator.identity, list(images.shape)], [images])
    held = pieces.read(annotator.name, identity, Annotations._fields)
    if held is None:
        print(f"annotating by {annotator.name}", file=sys.stderr, flush=True)
        table = annotator(images)
        pieces.write(annotator.name, identity, **table._asdict())
        return table
    names, kinds, descriptions = (
        tuple(held[name].tolist()) for name in ("names", "kinds", "descriptions")
    )
    return Annotations(names, kinds, descriptions, held["values"])


def _train(
    config: Config,
    subject: Subject,
    network: networks.Network,
    model: Model,
    num_parameters: int,
    workdir: pathlib.Path,
) -> Trained:
    """Returns the network whose features are compared, and keeps it."""
    loaded, transform = subject.loaded, subject.named.artefact.transform
    real = data.on_device(loaded.train, transform, loaded.num_classes)
    net = plan_net(loaded, transform, network, config.recipe, config.epochs, config.seed)
    trainer = EpochTrainer(Arrays(workdir), config.recipe, config.seed)
    trainer.train([net], {net.kind: (model, num_parameters)}, real)
    return trainer.trained(net)


def _look(
    model: Model, params: Params, images: np.ndarray, transform: Transform
) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs of the last layer f32[t, d] and logits f32[t, k] of u8[t, h, w, c]."""

    @jax.jit
    def compute(params: Params, images: Array) -> tuple[Array, Array]:
        seen = transform(images)
        return model.features(params, seen), model.apply(params, seen)

    return networks.map_chunks(lambda part: compute(params, part), images, CHUNK)


def _positions(groups: Sequence[Group], classes: np.ndarray) -> np.ndarray:
    """Returns the members of each group among the test images, i[n, m]; -1 fills up."""
    size = max(len(group.members) for group in groups)
    chosen = np.full((len(groups), size), -1)
    for row, (label, members) in zip(chosen, groups, strict=True):
        row[: len(members)] = np.flatnonzero(classes == label)[members]
    return chosen


def _draw(config: Config, subject: Subject, found: Found, workdir: pathlib.Path) -> None:
    _, (_, artefact), loaded, _, images, _, labels = subject
    names, tested = [column.name for column in found.columns], found.tested
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
        [images[row[row >= 0][:PICTURED]] / 255.0 for row in found.chosen[shown]],
        [loaded.class_names[j] for j in labels[shown]],
        texts,
        "Test images whose loss rises most without each image, and what tells them from "
        f"others {of}",
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


def _show(summary: Summary, workdir: pathlib.Path) -> None:
    found, alike = summary["attributes"], summary["coherence"]
    table = new_table(
        f"Attributes shared by the most influenced images of {summary['label']}",
        ("image", "attribute", "rate or mean", "base", "effect", "p (Holm)", "q"),
        caption="Effect: P(in the group > beside it) - P(<); of rates their difference.",
        left=("attribute",),
    )
    for row in summary["enrichment"][:12]:
        table.add_row(
            f"{row['image']} {row['class']}",
            row["attribute"],
            f"{rate_or_mean(row):.3g}",
            f"{row['base']:.3g}",
            f"{row['effect']:+.2f}",
            f"{row['p_holm']:.2g}",
            f"{row['q']:.2g}",
        )
    show_table(table, 110)
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


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
