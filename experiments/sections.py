"""What the page of `experiments.report` shows of each section of the paper.

Tables of the records with the paper's numbers beside them, and the runs' pictures.
"""

import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from distilljax import io
from experiments import claims, common, figures, reference
from experiments.claims import NAMES, Record, spelt, spelt_interval
from experiments.page import Content, Markup, beside, data_table, el, picture

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


def pictures(record: Record, skip: Sequence[str] = ()) -> list[Markup]:
    """All pictures of a run, in order of `CAPTIONS`, others after them."""
    order = [file for kind, file in CAPTIONS if kind == record.experiment]
    files = sorted(
        (p for p in pathlib.Path(record.folder).glob("*.png") if p.name not in skip),
        key=lambda p: (order.index(p.name) if p.name in order else len(order), p.name),
    )
    found = []
    for file in files:
        text = CAPTIONS.get((record.experiment, file.name), file.stem.replace("_", " "))
        about = title_of(record)
        caption = [f"{text}. ", el("span", about, class_="scale")]
        found.append(picture(file, f"{text} ({about})", caption))
    return found


def grid(record: Record) -> Markup | None:
    """The set that a run distilled; None where neither it nor its picture is there."""
    folder = pathlib.Path(record.folder)
    name, ipc = _set_name(record), record.config.get("ipc")
    accuracy = record.get("accuracy", "distilled")
    caption = [
        el("strong", name),
        f", {claims.per_class(int(ipc or 0))}: {_mean(accuracy)} % of test images. ",
        el("span", claims.configured(record), class_="scale"),
    ]
    alt = f"The images that {name} distilled, a row or a column for each class"
    if (folder / "grid.png").exists():
        return picture(folder / "grid.png", alt, caption)
    if not (folder / "distilled.npz").exists():
        return None
    artefact = io.load(folder / "distilled.npz")
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "grid.png")
        shown = common.displayable(artefact.transform, artefact.distilled.images)
        title = f"{artefact.method} on {artefact.dataset['name']}"
        figures.image_grid(path, shown, artefact.class_names, title)
        return picture(path, alt, caption)


def _set_name(record: Record) -> str:
    method = str(record.config.get("method"))
    return NAMES.get(method, method)


def _mean(spread: Mapping[str, Any], digits: int = 1) -> str:
    """Mean and standard deviation in percent."""
    mean, std = 100 * spread["mean"], spread.get("std")
    beside = "" if std is None else f" ± {100 * std:.{digits}f}"
    return f"{mean:.{digits}f}{beside}"


def _percent(value: float | None, digits: int = 1) -> str | None:
    return None if value is None else f"{100 * value:.{digits}f}"


def seconds_of(record: Record) -> float:
    """What a run took."""
    found = record.get("seconds")
    if isinstance(found, Mapping):
        for key in ("total", "measuring"):
            if key in found:
                return record.number("seconds", key)
    return record.number("seconds")


def title_of(record: Record) -> str:
    """A run in a few words: what it is about, and the scale."""
    kind = record.experiment
    if kind == "dynamics":
        described = {**record.get("model"), "model": record.get("model", "name")}
        number = int(record.number("runs"))
        on = record.get("trained_on")
        learned = (
            "real images"
            if on == "real"
            else f"the distilled set {claims.folder_name(str(on))}"
        )
        runs = f"{number} run{'s' * (number > 1)}"
        return f"{claims.network(described)}, learning {learned}, {runs}"
    if kind in ("influence", "attributes"):
        return claims.folder_name(claims.paths_of(record)[0])
    if kind == "recognition":
        about = record.get("networks")
        nets = [
            f"{name}: {claims.network(about[name], _paper_width(name))}" for name in about
        ]
        return "; ".join(nets)
    if kind == "mixing":
        rows = record.get("rows").values()
        nets = sorted({claims.network(row["network"]) for row in rows})
        return (
            f"{'; '.join(nets)}; {record.number('accuracy', *_first(record)):.0f} networks"
        )
    return claims.configured(record) if "model" in record.config else record.folder


def _first(record: Record) -> tuple[str, str, str]:
    return next(iter(record.get("accuracy"))), "0", "seeds"


def _paper_width(name: str) -> int:
    paper = reference.RECOGNITION.get(name)
    return paper.width if paper and paper.width else reference.WIDTH


def _label(label: str, method: object) -> Content:
    """A row of a table: the method, and the set's own name."""
    if method in (None, "random", "test"):
        return label
    return [
        el("strong", NAMES.get(str(method), str(method))),
        el("span", label, class_="sub"),
    ]


def smoothed(iterations: Sequence[int], values: Sequence[float]) -> list[float]:
    """The paper's exponential moving average, an iteration at a time.

    Between two looks the quantity is taken as it is at the second, so that a look k
    iterations later keeps 0.9^k of what was there before.
    """
    found: list[float] = []
    for number, value in enumerate(values):
        if number == 0:
            found.append(value)
            continue
        keep = reference.SMOOTHING ** (iterations[number] - iterations[number - 1])
        found.append(keep * found[-1] + (1 - keep) * value)
    return found


def _size_and_method(record: Record) -> tuple[int, int, str]:
    """Large sets first, methods in the order of the claims."""
    method = str(record.config.get("method"))
    known = claims.METHODS
    at = known.index(method) if method in known else len(known)
    return -int(record.config.get("ipc") or 0), at, record.folder


def _standard(records: Sequence[Record]) -> list[Markup]:
    made = sorted(
        (record for record in records if record.experiment == "distill"),
        key=_size_and_method,
    )
    if not made:
        return []
    names = [n for n in common.TRAINED_ON if any(n in r.get("accuracy") for r in made)]
    rows = []
    for record in made:
        accuracy = record.get("accuracy")
        method, ipc = record.config.get("method"), int(record.config.get("ipc") or 0)
        cells: list[Content] = [
            _label(claims.folder_name(f"{record.folder}/distilled.npz"), method),
            str(ipc),
        ]
        for name in names:
            paper = None
            if ipc == reference.IPC and name == "distilled":
                paper = _percent(reference.STANDARD.get(str(method)))
            if ipc == reference.IPC and name == "random":
                paper = _percent(reference.MIXING["random"][0])
            held = accuracy.get(name)
            cells.append(beside(_mean(held) if held else "–", paper if held else None))
        protocol = record.get("protocol", "name")
        cells.append(f"{claims.configured(record)}; {protocol}")
        rows.append(cells)
    head = ["set", "images per class", *(common.TRAINED_ON[n] for n in names), "network"]
    seeds = sorted({int(r.number("accuracy", "distilled", "seeds")) for r in made})
    caption = (
        f"Test accuracy in percent: mean ± standard deviation of {listed(seeds)} networks."
    )
    found: list[Content] = [grid(record) for record in made]
    return [
        data_table(head, rows, caption),
        el("h3", "The sets"),
        el("div", found, class_="gallery"),
    ]


def listed(values: Iterable[object]) -> str:
    """Things to choose among, in words."""
    return " or ".join(map(str, values))


def _as_theirs(row: Mapping[str, Any]) -> bool:
    """Whether a set has the paper's size; test images have none."""
    return row.get("images_per_class", reference.IPC) == reference.IPC


def _recognition(records: Sequence[Record]) -> list[Markup]:
    found = []
    for record in records:
        if record.experiment != "recognition":
            continue
        rows, nets = record.get("rows"), list(record.get("networks"))
        table: list[list[Content]] = []
        for label in record.get("recognition"):
            method = rows[label]["method"]
            cells: list[Content] = [_label(label, method)]
            for name in nets:
                paper = reference.RECOGNITION.get(name)
                of_paper = None
                if paper and _as_theirs(rows[label]):
                    of_paper = paper.test if method == "test" else paper.sets.get(method)
                ours = _mean(record.get("recognition", label, name, "accuracy"))
                cells.append(beside(ours, _percent(of_paper, 0 if method != "test" else 1)))
            table.append(cells)
        seeds = int(
            record.number("recognition", next(iter(rows)), nets[0], "accuracy", "seeds")
        )
        head: list[Content] = ["shown"]
        for name in nets:
            about = claims.network(record.get("networks", name), _paper_width(name))
            epochs = record.get("networks", name, "epochs")
            head.append([name, el("span", f"{about}, {epochs} epochs", class_="sub")])
        caption = (
            f"Recognised, in percent: mean ± standard deviation of {seeds} networks "
            "trained on real images."
        )
        found.append(data_table(head, table, caption))
        pixels = record.get("pixels")
        table = [
            [
                _label(label, rows[label]["method"]) if label in rows else label,
                *(_percent(one[side]) for side in ("outside", "below", "above")),
                *(f"{one['quantiles'][q]:.2f}".replace("-", "−") for q in ("0.0", "1.0")),
            ]
            for label, one in pixels.items()
        ]
        head = [
            "pixel values of",
            "outside 0..1, %",
            "below, %",
            "above, %",
            "least",
            "most",
        ]
        found.append(data_table(head, table))
        found += pictures(record)
    return found


def _mixing(records: Sequence[Record]) -> list[Markup]:
    found = []
    for record in records:
        if record.experiment != "mixing":
            continue
        accuracy, rows = record.get("accuracy"), record.get("rows")
        numbers = list(next(iter(accuracy.values())))
        table = []
        for label, row in accuracy.items():
            method = rows[label]["method"]
            paper = reference.MIXING.get(method)
            cells: list[Content] = [_label(label, method)]
            for number in numbers:
                at = int(number)
                of_paper = None
                theirs = _as_theirs(rows[label])
                if paper and theirs and at in reference.REAL_PER_CLASS:
                    of_paper = _percent(paper[reference.REAL_PER_CLASS.index(at)])
                cells.append(beside(_mean(row[number]), of_paper))
            table.append(cells)
        caption = (
            "Test accuracy in percent, mean ± standard deviation, with so many real images "
            f"added to each class. {title_of(record)}."
        )
        head = ["set", *(f"+{number}" for number in numbers)]
        found.append(data_table(head, table, caption))
        found += pictures(record)
    return found


def _agreement(records: Sequence[Record]) -> list[Markup]:
    found = []
    for record in records:
        if record.experiment != "agreement":
            continue
        rows = record.get("rows")
        table = []
        for label in record.get("agreement"):
            method = str(rows[label]["method"])
            cells: list[Content] = [_label(label, method)]
            if why := claims.unmatched(record, "agreement", label):
                table.append([*cells, f"not matched: {why}", "–", "–", "–", "–"])
                continue
            paper = reference.AGREEMENT.get(method) if _as_theirs(rows[label]) else None
            early = record.get("agreement", label, "early_stopped")
            at = early.get("iteration")
            stopped = beside(
                "–" if at is None else f"{at:.0f}", str(paper.iteration) if paper else None
            )
            cells += [
                _mean(record.get("agreement", label, "accuracy")),
                _agreed(record, label, "subset", paper.subset if paper else None),
                _agreed(
                    record, label, "early_stopped", paper.early_stopped if paper else None
                ),
                stopped,
                _agreed(
                    record,
                    label,
                    "difference",
                    paper.early_stopped - paper.subset if paper else None,
                ),
            ]
            table.append(cells)
        head = [
            "set",
            "accuracy, %",
            "with subset-trained",
            "with early-stopped",
            "stopped at (median)",
            "difference",
        ]
        caption = (
            "Equal test predictions at equal accuracy, with 95 % intervals; κ is Cohen's, "
            "d the difference in standard deviations. The paper's are the modes of its "
            f"distributions. {claims.network(record.get('model'))}."
        )
        found.append(data_table(head, table, caption))
        found += pictures(record)
    return found


def _agreed(record: Record, label: str, what: str, paper: float | None) -> Content:
    """A cell of the table of agreement: one pool, or the difference."""
    at = "agreement", label, what
    if why := claims.unmatched(record, *at):
        return f"not matched: {why}"
    unit: claims.Unit = "points" if what == "difference" else "percent"
    entry = record.get(*at)
    below = []
    if None not in record.get(*at, "interval"):
        interval = claims.recorded(record, *at, "interval")
        below.append(spelt_interval(interval.low, interval.high, unit))
    if what == "difference":
        size = entry.get("cohen_d")
        below += [] if size is None else [f"d {size:.1f}"]
    else:
        kappa = entry.get("kappa")
        below += [] if kappa is None else [f"κ {kappa:.2f}"]
        below.append(f"{record.number(*at, 'num_members'):.0f} networks")
    return beside(
        [
            spelt(record.number(*at, "value"), unit),
            el("span", "; ".join(below), class_="sub"),
        ],
        None if paper is None else spelt(paper, unit),
    )


NEAR = 10  # iterations between a look of ours and one of the paper's, at most


def _nearest(measured: Sequence[int], iteration: int) -> int | None:
    found = min(measured, key=lambda i: (abs(i - iteration), i))
    return found if abs(found - iteration) <= NEAR else None


def _along(
    record: Record,
    curve: str,
    at: Sequence[int],
    paper: Mapping[str, Sequence[float]],
    shown: Callable[[float], str],
    caption: str,
    smooth: bool,
) -> Markup | None:
    """A curve of every set at the iterations of the paper."""
    if curve not in record.get("curves"):
        return None
    sets = record.get("sets")
    measured = claims.iterations(record, curve, next(iter(record.get("curves", curve))))
    ours = [_nearest(measured, i) for i in at]
    head: list[Content] = ["set"]
    for iteration, look in zip(at, ours, strict=True):
        differs = look is not None and look != iteration
        sub = el("span", f"ours {look}", class_="sub") if differs else None
        head.append([str(iteration), sub])
    table = []
    names = {"train": "real", "test": "test", "random": "random"}
    for label in record.get("curves", curve):
        own = names.get(label, label)
        method = str(sets[label]["method"] or own)
        values = [claims.point(record, curve, label, i).values.mean() for i in measured]
        if smooth:
            values = smoothed(measured, values)
        cells: list[Content] = [
            _label(REAL_LABELS.get(label, label), sets[label]["method"])
        ]
        for column, look in enumerate(ours):
            number = "–" if look is None else shown(float(values[measured.index(look)]))
            size = sets[label]["images"] / record.number("dataset", "num_classes")
            theirs = sets[label]["method"] is None or size == reference.IPC
            row = paper.get(method) if theirs else None
            cells.append(beside(number, shown(row[column]) if row else None))
        table.append(cells)
    return data_table(head, table, caption)


REAL_LABELS = {
    "train": "real training images",
    "test": "test images",
    "random": "random real images",
}


def _on_real(records: Sequence[Record]) -> list[Record]:
    return [
        r for r in records if r.experiment == "dynamics" and r.get("trained_on") == "real"
    ]


def _recognised_along(records: Sequence[Record]) -> list[Markup]:
    found = [
        _along(
            record,
            claims.ACCURACY,
            reference.TRAINING_ITERATIONS,
            reference.TRAINING,
            lambda x: f"{100 * x:.0f}",
            f"Accuracy in percent along training. {title_of(record)}.",
            smooth=False,
        )
        for record in _on_real(records)
    ]
    return [table for table in found if table is not None]


def _curvature(records: Sequence[Record]) -> list[Markup]:
    found: list[Markup] = []
    for record in _on_real(records):
        table = _along(
            record,
            claims.TRACE,
            reference.TRACE_ITERATIONS,
            reference.TRACE,
            lambda x: f"{x:,.0f}".replace("-", "−"),
            "Trace of the Hessian along training, smoothed as in the paper (0.9 of what "
            "was there before is kept each iteration). A trace grows with the number of "
            f"parameters, so compare rows, not with the paper. {title_of(record)}.",
            smooth=True,
        )
        found += [table] if table is not None else []
        found += pictures(record)
    learned = [
        record
        for record in records
        if record.experiment == "dynamics" and record.get("trained_on") != "real"
    ]
    for record in learned:
        found += [el("h3", f"The reverse: {title_of(record)}"), *pictures(record)]
    return found


def _influence(records: Sequence[Record]) -> list[Markup]:
    runs = [record for record in records if record.experiment == "influence"]
    if not runs:
        return []
    table = []
    for record in runs:
        method = str(record.get("artefact", "method"))
        estimates = record.get("estimates")
        of = "with_the_same_initialisation"
        told = [
            f"{claims.ESTIMATES.get(name, name)} "
            f"{record.number('estimates', name, of, 'mean'):.2f}"
            for name in estimates
        ]
        table.append(
            [
                _label(title_of(record), method),
                f"{record.number('networks'):.0f}",
                f"{record.number('mean_absolute_influence'):.3g}",
                f"{record.number('mean_noise_floor'):.3g}",
                f"{record.number('reliability', 'value'):.2f}",
                f"{100 * record.number('same_class_among_top_nine'):.0f} %",
                "; ".join(told) or "–",
            ]
        )
    head = [
        "set",
        "networks",
        "mean |influence|",
        "noise floor",
        "correlation between seeds",
        "own class among nine",
        "correlation of estimates",
    ]
    found = [data_table(head, table, "Leave-one-out influence on test losses.")]
    for record in runs:
        found += pictures(record)
    return found


MOST_FINDINGS = 12


def _attributes(records: Sequence[Record]) -> list[Markup]:
    found = []
    for record in records:
        if record.experiment != "attributes":
            continue
        rows = sorted(record.get("enrichment"), key=lambda row: (row["p"], str(row)))
        table = []
        for row in rows[:MOST_FINDINGS]:
            rate = row.get("rate", row.get("mean"))
            table.append(
                [
                    [
                        el("strong", str(row["attribute"])),
                        el("span", str(row["annotator"]), class_="sub"),
                    ],
                    f"{row['image']} ({row['class']})",
                    *(f"{x:.3g}" for x in (rate, row["base"], row["effect"])),
                    *(_p(row[k]) for k in ("p", "p_holm", "q")),
                ]
            )
        head = [
            "attribute",
            "image",
            "rate or mean",
            "base",
            "effect",
            "p",
            "p (Holm)",
            "q",
        ]
        count = f"the {len(table)} of smallest p of {len(rows)}"
        name = NAMES.get(str(record.get("method")), str(record.get("method")))
        caption = f"{name}, {record.get('label')}: attributes, {count}."
        if table:
            found.append(data_table(head, table, caption))
        found += pictures(record)
    return found


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def _beyond(records: Sequence[Record]) -> list[Markup]:
    found = []
    for record in records:
        if record.experiment == "cross_architecture":
            accuracy, rows = record.get("accuracy"), record.get("rows")
            nets = list(next(iter(accuracy.values())))
            table = [
                [_label(label, rows[label]["method"]), *(_mean(row[n]) for n in nets)]
                for label, row in accuracy.items()
            ]
            scale = record.config.get("width_scale")
            caption = (
                "Test accuracy in percent of other architectures, mean ± standard "
                f"deviation; widths times {scale}."
            )
            found.append(data_table(["trained on", *nets], table, caption))
            found += pictures(record)
        if record.experiment == "coresets":
            accuracy = record.get("accuracy")
            ipcs = list(next(iter(accuracy.values())))
            table = [
                [str(name), *(_mean(row[ipc]) for ipc in ipcs)]
                for name, row in accuracy.items()
            ]
            head = ["chosen by", *(f"{ipc} per class" for ipc in ipcs)]
            caption = (
                "Chosen real images: test accuracy in percent, mean ± standard deviation."
            )
            found.append(data_table(head, table, caption))
    return found


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
        lambda records: [*_recognition(records), *_mixing(records)],
    ),
    Section(
        "4.1",
        "Whose predictions do networks trained on a set share: those of networks that saw "
        "all real images for a short time, or a few for a long one? The paper matches "
        "accuracies to one or two points and picks iterations by hand; here pools are "
        "matched by accuracy automatically.",
        _agreement,
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
        _influence,
    ),
    Section(
        "5",
        "What do the real images that a distilled image acts on have in common? The paper "
        "asks a vision-language model, and released no code.",
        _attributes,
    ),
    Section(
        "beyond",
        "Claims of our own, and tables that the paper has none of.",
        _beyond,
    ),
)
