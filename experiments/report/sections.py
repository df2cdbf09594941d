"""TODO."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.agreement.report import _table
from experiments.attributes.report import _table
from experiments.distill.report import _standard
from experiments.dynamics.report import _curvature, _recognised_along
from experiments.influence.report import _table
from experiments.lab.claims import Record, configured_network, describe_network, set_name
from experiments.lab.html import Markup, data_table
from experiments.lab.sections import pictures_of, set_label, spelt_mean
from experiments.mixing.report import _first, _table
from experiments.recognition.report import _paper_width, _table
from experiments.report.collect import paths_of

CAPTIONS = {
    ("recognition", "recognition.png"): (
        "Share of each set that networks trained on real images recognise, a column of "
        "dots for each architecture"
    ),
    ("recognition", "pixels.png"): (
        "Densities of pixel values, back in the range of images, of each set and of real "
        "images"
    ),
    ("recognition", "features.png"): (
        "Features of test images and of distilled images in two dimensions, by the input "
        "of the last layer"
    ),
    ("mixing", "mixing.png"): (
        "Test accuracy against the number of real images added to each class, a line for "
        "each set, with 95 % intervals"
    ),
    ("agreement", "agreement.png"): (
        "Agreement of networks trained on each set with early-stopped and with "
        "subset-trained networks"
    ),
    ("dynamics", "dynamics.png"): (
        "What probes see on each set along training: accuracy, loss, curvature and kernel "
        "against the iteration"
    ),
    ("dynamics", "spectrum.png"): (
        "Spectral densities of the Hessian on each set, a panel for each iteration"
    ),
    ("influence", "influence.png"): (
        "Distilled images, each with the nine test images whose loss rises most when it is "
        "left out"
    ),
    ("attributes", "attributes.png"): (
        "Distilled images, each with the test images that it acts on and the attributes "
        "that tell those best from others of their class"
    ),
    ("attributes", "effects.png"): (
        "How strongly each attribute tells the images that a distilled image acts on from "
        "others of their class"
    ),
    ("cross_architecture", "accuracy.png"): (
        "Test accuracy of networks of each architecture trained on each set"
    ),
}


def title_of(record: Record) -> str:
    """A run in a few words: what it is about, and the scale."""
    kind = record.experiment
    if kind == "dynamics":
        described = {**record.get("model"), "model": record.get("model", "name")}
        number = int(record.number("runs"))
        on = record.get("trained_on")
        learned = (
            "real images" if on == "real" else f"the distilled set {set_name(str(on))}"
        )
        runs = f"{number} run{'s' * (number > 1)}"
        return f"{describe_network(described)}, learning {learned}, {runs}"
    if kind in ("influence", "attributes"):
        return set_name(paths_of(record)[0])
    if kind == "recognition":
        about = record.get("networks")
        nets = [
            f"{name}: {describe_network(about[name], _paper_width(name))}" for name in about
        ]
        return "; ".join(nets)
    if kind == "mixing":
        rows = record.get("rows").values()
        nets = sorted({describe_network(row["network"]) for row in rows})
        return (
            f"{'; '.join(nets)}; {record.number('accuracy', *_first(record)):.0f} networks"
        )
    return configured_network(record) if "model" in record.config else record.folder


class Section(NamedTuple):
    """A part of the page."""

    key: str  # of `claims.SECTIONS`
    text: str
    contents: Callable[[Sequence[Record]], list[Markup]]


SECTIONS = (
    Section(
        "standard",
        "Networks are trained from scratch on each set, and tested. Each has initial "
        "weights of its own, and each random baseline images of its own.",
        _standard,
    ),
    Section(
        "3",
        "If distilled images stood in for real ones, networks that know only real images "
        "would recognise them, and more real images beside them could do no harm. The "
        "paper has one network a number, and other initial weights at each point of the "
        "mixing curve; here networks of one number share weights and real images, so that "
        "differences are taken network by network.",
        lambda records: [*_table(records), *_table(records)],
    ),
    Section(
        "4.1",
        "Whose predictions do networks trained on a set share: those of networks that saw "
        "all real images for a short time, or a few for a long one? The paper matches "
        "accuracies to one or two points and picks iterations by hand; here pools are "
        "matched by accuracy automatically.",
        _table,
    ),
    Section(
        "4.2",
        "One network learns real images, and is shown each set along the way.",
        _recognised_along,
    ),
    Section(
        "4.3",
        "The trace of the loss Hessian on each set, while a network learns real images. "
        "The paper stops probing when the running mean settles; here the number of probes "
        "is fixed, and the standard error shown.",
        _curvature,
    ),
    Section(
        "5.2",
        "Each image of a set is left out in turn, and test losses are compared with those "
        "of a network that had it. The paper has one initialisation; several tell "
        "influence from chance.",
        _table,
    ),
    Section(
        "5",
        "What do the real images that a distilled image acts on have in common? The paper "
        "asks a vision-language model, and released no code.",
        _table,
    ),
    Section(
        "beyond",
        "Claims of our own, and tables that the paper has none of.",
        _beyond,
    ),
)


def _beyond(records: Sequence[Record]) -> list[Markup]:
    found = []
    for record in records:
        if record.experiment == "cross_architecture":
            accuracy, rows = record.get("accuracy"), record.get("rows")
            nets = list(next(iter(accuracy.values())))
            table = [
                [
                    set_label(label, rows[label]["method"]),
                    *(spelt_mean(row[n]) for n in nets),
                ]
                for label, row in accuracy.items()
            ]
            scale = record.config.get("width_scale")
            caption = (
                "Test accuracy in percent of other architectures, mean ± standard "
                f"deviation; widths times {scale}."
            )
            found.append(data_table(["trained on", *nets], table, caption))
            found += pictures_of(record)
        if record.experiment == "coresets":
            accuracy = record.get("accuracy")
            ipcs = list(next(iter(accuracy.values())))
            table = [
                [str(name), *(spelt_mean(row[ipc]) for ipc in ipcs)]
                for name, row in accuracy.items()
            ]
            head = ["chosen by", *(f"{ipc} per class" for ipc in ipcs)]
            caption = (
                "Chosen real images: test accuracy in percent, mean ± standard deviation."
            )
            found.append(data_table(head, table, caption))
    return found
