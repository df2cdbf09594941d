"""One page on what the experiments found, with a verdict on each claim of the paper.

    python -m experiments.report --records=runs/study-laptop
    python -m experiments.report --records=runs --dataset=cifar10 --out=report.html

Reads every run under `--records` (a `config.json` beside a `summary.json`), and the runs
that made the sets they look at, where those lie as the records say, relative to the
current directory. A page is about one data set; records of others have to be named by
`--dataset`. `experiments.claims` has the rule of the verdicts.

Writes `--out`, one HTML file that needs nothing else: its pictures are inside, there are
no scripts, and it is the same for the same records. Links lead to the records as they lie
beside it. `verdicts.json`, in the same folder, has the verdicts for programs.
"""

import dataclasses
import json
import os
import pathlib
import shlex
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from distilljax import launch
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.io.files import replacing, write_json
from distilljax.types import InputError
from experiments import claims, reference
from experiments.claims import NAMES, Reading, Record, Verdict, spelt, spelt_interval
from experiments.page import STYLE, Content, Markup, el
from experiments.progress import duration
from experiments.sections import SECTIONS, listed, seconds_of, title_of

READ = (
    "distill",
    "recognition",
    "mixing",
    "agreement",
    "dynamics",
    "influence",
    "attributes",
    "coresets",
    "cross_architecture",
)


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the report."""

    records: str = option("", "Folder of runs, searched for config.json at any depth.")
    dataset: str | None = option(
        None, "Data that the page is about; none: those of the records, if all share them."
    )
    out: str | None = option(None, "The page; none: report.html in --records.")
    title: str = option(f"Revisiting “{reference.TITLE}”", "Title of the page.")


# --- records ---------------------------------------------------------------------------


class Run(NamedTuple):
    """A run that has no part in the verdicts."""

    folder: str
    experiment: str
    command: str


class Collection(NamedTuple):
    """What a page is made of."""

    records: list[Record]  # all of one data set, in order of `READ` and folder
    dataset: Mapping[str, Any]
    unfinished: list[Run]
    others: list[Run]  # experiments that the page does not read
    missing: list[str]  # sentences


def _folders(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Folders with a config.json, through links, each once, in order."""
    seen = set()
    for here, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if "config.json" in files:
            yield pathlib.Path(here)


def _json(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); run that experiment again, or move the "
            "folder away"
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object; move the folder away")
    return found


def _read(folder: pathlib.Path) -> Record | Run | None:
    """What lies in a folder; None where its config.json is none of ours."""
    config = _json(folder / "config.json")
    module = config.get("experiment")
    if not isinstance(module, str) or not module.startswith("experiments."):
        return None
    if not isinstance(config.get("config"), dict) or not isinstance(
        config.get("command"), str
    ):
        raise InputError(f"{folder}/config.json is damaged; move the folder away")
    name, shown = module.removeprefix("experiments."), folder.as_posix()
    if not (folder / "summary.json").exists():
        return Run(shown, name, config["command"])
    summary = _json(folder / "summary.json")
    command = summary.get("command", config["command"])
    return Record(name, shown, config["config"], str(command), summary)


def collect(root: pathlib.Path, dataset: str | None = None) -> Collection:
    """Everything under `root` that is about one data set, and the runs that made the sets.

    Args:
      root: where to look.
      dataset: the data's name or source, or the beginning of its fingerprint.

    Raises:
      InputError: no records; damaged ones; records of other data; two different records
        about the same.
    """
    if not root.is_dir():
        raise FieldError("records", str(root), "there is no such folder")
    found = [one for folder in _folders(root) if (one := _read(folder)) is not None]
    finished = [one for one in found if isinstance(one, Record) and one.experiment in READ]
    unfinished = [r for r in found if isinstance(r, Run) and r.experiment in READ]
    others = [
        Run(one.folder, one.experiment, one.command)
        for one in found
        if one.experiment not in READ
    ]
    if not finished:
        raise InputError(
            f"{root} holds no finished run of {', '.join(READ)}; run one of these, or name "
            "the folder that --workdir named"
        )
    records = _of_one_dataset(finished, dataset)
    fingerprint = records[0].get("dataset", "fingerprint")
    records, missing = _with_makers(records, fingerprint)
    records = _without_twins(records)
    records.sort(key=lambda record: (READ.index(record.experiment), record.folder))
    return Collection(records, records[0].get("dataset"), unfinished, others, missing)


def _of_one_dataset(records: Sequence[Record], dataset: str | None) -> list[Record]:
    by_data: dict[str, list[Record]] = {}
    for record in records:
        by_data.setdefault(str(record.get("dataset", "fingerprint")), []).append(record)

    def named(of: Sequence[Record]) -> str:
        folders = ", ".join(record.folder for record in of[:3])
        more = f" and {len(of) - 3} more" if len(of) > 3 else ""
        return f"{of[0].get('dataset', 'name')} ({folders}{more})"

    listed = "; ".join(map(named, by_data.values()))
    if dataset is None:
        if len(by_data) > 1:
            raise InputError(
                f"a page is about one data set, and here are records of {listed}; choose "
                "with --dataset"
            )
        return list(records)
    wanted = dataset.lower()
    chosen = [
        of
        for fingerprint, of in by_data.items()
        if wanted in {str(of[0].get("dataset", k)).lower() for k in ("name", "source")}
        or (len(wanted) > 6 and fingerprint.startswith(wanted))
    ]
    if len(chosen) != 1:
        what = "several data sets of that name are" if chosen else "no such data are"
        reason = f"{what} among the records: {listed}"
        raise FieldError("dataset", dataset, reason)
    return chosen[0]


def _with_makers(
    records: Sequence[Record], fingerprint: str
) -> tuple[list[Record], list[str]]:
    """The records and those of the runs that made their sets; what was not found."""
    found, missing = list(records), []
    known = {os.path.realpath(record.folder) for record in records}
    for path in sorted({path for record in records for path in claims.paths_of(record)}):
        folder = pathlib.Path(path).parent
        if os.path.realpath(folder) in known:
            continue
        known.add(os.path.realpath(folder))
        made = _read(folder) if (folder / "config.json").exists() else None
        if not isinstance(made, Record) or made.experiment != "distill":
            missing.append(
                f"There is no record of how {path} was made, so its accuracy and its "
                "picture are left out."
            )
        elif made.get("dataset", "fingerprint") != fingerprint:
            missing.append(
                f"{path} was made of other data ({made.get('dataset', 'name')}), so its "
                "accuracy is left out."
            )
        else:
            found.append(made)
    return found, missing


def _subjects(record: Record) -> set[tuple[Any, ...]]:
    """What a record is about; two records of an experiment may not share any."""
    kind, paths = record.experiment, [os.path.normpath(p) for p in claims.paths_of(record)]
    if kind in ("distill", "coresets"):
        return {(kind, json.dumps(record.config, sort_keys=True))}
    if kind == "dynamics":
        curves = record.get("curves")
        trained_on = record.get("trained_on")
        return {
            (kind, path, trained_on, curve)
            for path in paths or ["real images alone"]
            for curve in curves
        }
    if kind == "recognition":
        return {(kind, path, name) for path in paths for name in record.get("networks")}
    if kind == "cross_architecture":
        rows = record.get("accuracy").values()
        return {(kind, path, name) for path in paths for row in rows for name in row}
    return {(kind, path) for path in paths}


def _without_twins(records: Sequence[Record]) -> list[Record]:
    """Copies of a record dropped.

    Raises:
      InputError: two different records of the same.
    """
    kept: list[Record] = []
    holder: dict[tuple[Any, ...], Record] = {}
    for record in records:
        subjects = _subjects(record)
        shared = next((holder[subject] for subject in subjects if subject in holder), None)
        if shared is None:
            kept.append(record)
            holder |= dict.fromkeys(subjects, record)
        elif (shared.config, shared.summary) != (record.config, record.summary):
            raise InputError(
                f"{shared.folder} and {record.folder} are both experiments."
                f"{record.experiment} on the same set and data, and differ; move one away"
            )
    return kept


# --- claims on the page ----------------------------------------------------------------


SYMBOLS = {
    claims.SUPPORTED: "✓",
    claims.NOT_SUPPORTED: "✕",
    claims.UNDECIDED: "?",
    claims.NO_RECORD: "–",
}


def badge(outcome: str) -> Markup:
    """A verdict, in a sign and in words."""
    return el(
        "span",
        el("span", SYMBOLS[outcome], class_="sign", aria_hidden="true"),
        outcome,
        class_=f"badge {outcome.replace(' ', '-')}",
    )


def ends(reading: Reading, alpha: float = claims.ALPHA) -> str | None:
    """The interval; None where there is none, or the number is a count."""
    found = claims.Deciding(reading, alpha).interval()
    if found is None or found[0] == found[1]:
        return None
    return spelt_interval(*found, reading.unit)


def level(alpha: float) -> str:
    """Of an interval, where it is not 95 %."""
    return "" if alpha == claims.ALPHA else f"at {100 * (1 - alpha):.3g} %"


def number(reading: Reading, alpha: float = claims.ALPHA) -> Markup:
    """The number with its interval."""
    value = "–" if reading.value is None else spelt(reading.value, reading.unit)
    interval = ends(reading, alpha)
    return el(
        "span",
        el("strong", value),
        el("span", f"({interval})", class_="ends") if interval else None,
        class_="number",
    )


def named(reading: Reading) -> str:
    """Which of a claim's readings it is."""
    method = NAMES.get(reading.method, reading.method)
    return f"{method}, {reading.where}" if reading.where else method


class Axis(NamedTuple):
    """Where numbers of a claim lie on its picture."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """In units of the picture, clipped to it."""
        share = (value - self.low) / (self.high - self.low)
        return 6 + 228 * min(max(share, 0.0), 1.0)


def axis(readings: Sequence[Reading]) -> Axis | None:
    """Holds all numbers and thresholds, and intervals as far as they are not far longer."""
    core = [r.threshold for r in readings]
    core += [x for r in readings for x in (r.value, r.paper) if x is not None]
    if not core:
        return None
    width = (max(core) - min(core)) or abs(core[0]) or 1.0
    ends = [e for r in readings if r.interval for e in r.interval[:2]]
    low = max(min([*core, *ends]), min(core) - 0.75 * width)
    high = min(max([*core, *ends]), max(core) + 0.75 * width)
    margin = 0.05 * (high - low)
    return Axis(low - margin, high + margin)


def forest(reading: Reading, scale: Axis) -> Markup:
    """The number, its interval, the threshold and the paper's number on a line."""
    at, middle = scale.at, 13
    threshold = at(reading.threshold)
    left, right = (threshold, 240.0) if reading.above else (0.0, threshold)
    parts = [
        el(
            "rect",
            x=f"{left:.1f}",
            y=0,
            width=f"{right - left:.1f}",
            height=26,
            class_="side",
        ),
        el(
            "line",
            x1=f"{threshold:.1f}",
            x2=f"{threshold:.1f}",
            y1=0,
            y2=26,
            class_="bound",
        ),
    ]
    if reading.interval:
        low, high = reading.interval.low, reading.interval.high
        x, y = at(low), at(high)
        parts.append(
            el(
                "line",
                x1=f"{x:.1f}",
                x2=f"{y:.1f}",
                y1=middle,
                y2=middle,
                class_="interval",
            )
        )
        for end, place, beyond in ((low, x, low < scale.low), (high, y, high > scale.high)):
            turn = -1 if end == low else 1
            # An arrow where the interval goes on beyond the picture.
            shape = (
                f"M{place - 5 * turn:.1f} {middle - 4}L{place:.1f} {middle}"
                f"L{place - 5 * turn:.1f} {middle + 4}"
                if beyond
                else f"M{place:.1f} {middle - 4}V{middle + 4}"
            )
            parts.append(el("path", d=shape, class_="end"))
    if reading.paper is not None:
        p = at(reading.paper)
        shape = f"M{p:.1f} {middle - 6}l6 6l-6 6l-6 -6z"
        parts.append(el("path", d=shape, class_="theirs"))
    if reading.value is not None:
        parts.append(el("circle", cx=f"{at(reading.value):.1f}", cy=middle, r=4.5))
    kind = reading.outcome().replace(" ", "-")
    return el(
        "svg", parts, viewBox="0 0 240 26", class_=f"forest {kind}", aria_hidden="true"
    )


def paper_number(reading: Reading) -> str | None:
    """The paper's number beside it, if there is one."""
    return None if reading.paper is None else spelt(reading.paper, reading.unit)


def _sign(name: str, *parts: Markup) -> Markup:
    return el(
        "span",
        el("svg", parts, viewBox="0 0 40 18", class_="forest", aria_hidden="true"),
        name,
    )


KEY = el(
    "p",
    "In the pictures of the claims: ",
    _sign(
        "our number and its 95 % interval",
        el("line", x1=4, x2=36, y1=9, y2=9, class_="interval"),
        el("circle", cx=20, cy=9, r=4.5),
    ),
    _sign("the paper’s", el("path", d="M20 3l6 6l-6 6l-6 -6z", class_="theirs")),
    _sign(
        "the threshold, shaded on the claim’s side",
        el("rect", x=20, y=0, width=20, height=18, class_="side"),
        el("line", x1=20, x2=20, y1=0, y2=18, class_="bound"),
    ),
    class_="key",
)


def shared_note(verdict: Verdict) -> str | None:
    """What is to be said of every reading alike."""
    notes = {reading.note for reading in verdict.readings if reading.folder}
    return next(iter(notes)) or None if len(notes) == 1 else None


def readings_table(verdict: Verdict) -> Markup | None:
    """All readings of a claim; a picture of each on the same axis."""
    if not verdict.readings:
        return None
    scale = axis(verdict.readings)
    drawn = scale is not None and verdict.readings[0].unit != "p"
    rows = []
    shared = shared_note(verdict)
    for reading in verdict.readings:
        label = None if reading.label in ("", reading.method) else reading.label
        name = [
            el("strong", NAMES.get(reading.method, reading.method)),
            f" {reading.where}" if reading.where else None,
            [
                el("span", text, class_="sub")
                for text in (label, reading.scale, reading.note)
                if text and text != shared
            ],
        ]
        ours = [number(reading), el("span", reading.n, class_="sub") if reading.n else None]
        rows.append(
            el(
                "tr",
                el("th", name, scope="row"),
                el("td", forest(reading, scale), class_="plot")
                if drawn and scale is not None and reading.value is not None
                else el("td", "", class_="plot"),
                el("td", ours, data_label="ours (95 %)"),
                el("td", paper_number(reading) or "–", data_label="paper"),
                el("td", badge(reading.outcome()), class_="verdict"),
            )
        )
    head = (
        "set",
        f"claimed: {claims.bound(verdict.readings[0])}",
        "ours (95 %)",
        "paper",
        "by itself",
    )
    return el(
        "table",
        el("thead", el("tr", [el("th", cell, scope="col") for cell in head])),
        el("tbody", rows),
        class_="readings",
    )


def card(verdict: Verdict) -> Markup:
    """A claim with everything that its verdict rests on."""
    claim = verdict.claim
    absent = sorted(set(verdict.absent()))
    missing = None
    if verdict.outcome == claims.NO_RECORD:
        missing = f"No finished run of experiments.{claim.experiment} is among the records."
    elif absent:
        missing = f"Not looked at: {', '.join(absent)}."
    table = readings_table(verdict) if verdict.outcome != claims.NO_RECORD else None
    note = shared_note(verdict)
    if note:
        note = f"{note[0].upper()}{note[1:]}."
    return el(
        "article",
        el("header", badge(verdict.outcome), el("h3", claim.statement)),
        el("p", claim.rule, class_="rule"),
        table,
        [el("p", text, class_="rule") for text in (note, missing) if text],
        el("p", el("strong", "Paper: "), claim.paper, ".", class_="rule"),
        class_=f"claim {verdict.outcome.replace(' ', '-')}",
        id=f"claim-{claim.id}",
    )


def overview(verdicts: Sequence[Verdict]) -> Markup:
    """A row for each claim."""
    rows = []
    for verdict in verdicts:
        claim = verdict.claim
        ours: Content = "–"
        theirs = claim.paper
        if verdict.deciding is not None:
            reading, alpha = verdict.deciding
            where = f"{named(reading)}; {reading.n}"
            if reading.note in (claims.ONE_RUN, claims.ONE_RUN_EXACT):
                where += "; no other run"
            if level(alpha) and ends(reading, alpha):
                where += f"; interval {level(alpha)}, for it was picked"
            ours = [
                number(reading, alpha),
                el("span", where, class_="sub"),
                el("span", reading.scale, class_="sub"),
            ]
            if (theirs_number := paper_number(reading)) is not None:
                theirs = theirs_number
        rows.append(
            el(
                "tr",
                el("td", badge(verdict.outcome), class_="verdict"),
                el(
                    "th",
                    el("a", claim.statement, href=f"#claim-{claim.id}"),
                    el("span", _where(claim), class_="sub"),
                    scope="row",
                ),
                el("td", ours, data_label="ours (95 %)"),
                el("td", theirs, data_label="paper"),
            )
        )
    head = ("verdict", "claim", "ours, deciding number (95 %)", PAPER_COLUMN)
    return el(
        "table",
        el("thead", el("tr", [el("th", cell, scope="col") for cell in head])),
        el("tbody", rows),
        class_="overview",
    )


PAPER_COLUMN = f"paper ({reference.SETTING})"


def _where(claim: claims.Claim) -> str:
    if claim.section == "beyond":
        return "ours, beyond the paper"
    return "common setting" if claim.section == "standard" else f"sec. {claim.section}"


# --- the page --------------------------------------------------------------------------

DATA_NAMES = {
    "cifar10": "CIFAR-10",
    "embedded Fashion-MNIST": "Fashion-MNIST, the embedded 10,000 images",
}


def _counts(verdicts: Sequence[Verdict]) -> Counter[str]:
    return Counter(verdict.outcome for verdict in verdicts)


def tally(verdicts: Sequence[Verdict]) -> Markup:
    """How many verdicts there are of each kind, as tiles."""
    counts = _counts(verdicts)
    return el(
        "ul",
        [
            el(
                "li",
                el("span", str(counts[kind]), class_="count"),
                badge(kind),
                class_=kind.replace(" ", "-"),
            )
            for kind in claims.OUTCOMES
        ],
        class_="tally",
    )


def lead(verdicts: Sequence[Verdict]) -> str:
    """The result in a sentence."""
    of_paper = [v for v in verdicts if v.claim.section != "beyond"]
    counts = _counts(of_paper)
    known = len(of_paper) - counts[claims.NO_RECORD]
    said = (
        f"Of {len(of_paper)} claims of the paper, these runs support "
        f"{counts[claims.SUPPORTED]}, contradict {counts[claims.NOT_SUPPORTED]} and leave "
        f"{counts[claims.UNDECIDED]} undecided"
    )
    if known < len(of_paper):
        verb = "was" if counts[claims.NO_RECORD] == 1 else "were"
        said += f"; {counts[claims.NO_RECORD]} {verb} not looked at"
    ours = [v for v in verdicts if v.claim.section == "beyond"]
    supported = _counts(ours)[claims.SUPPORTED]
    return f"{said}. Of {len(ours)} claims of our own they support {supported}."


def scale_notes(collection: Collection) -> list[str]:
    """How the runs differ from the paper's in scale."""
    notes = []
    name = str(collection.dataset["name"])
    if name != reference.DATASET:
        notes.append(
            f"The data are {DATA_NAMES.get(name, name)}; the paper's are CIFAR-10, and its "
            "numbers stand beside ours for orientation only."
        )
    widths = sorted(
        {
            int(network["width"])
            for record in collection.records
            for network in _networks(record)
            if network.get("model") == "convnet"
            and isinstance(network.get("width"), int)
            and network["width"] < reference.WIDTH
        }
    )
    if widths:
        notes.append(
            f"ConvNets of width {listed(widths)}, not {reference.WIDTH} as in the paper: "
            "a verdict here is one on these networks."
        )
    followed = {
        "real images" if r.get("trained_on") == "real" else "a distilled set"
        for r in collection.records
        if r.experiment == "dynamics" and r.number("runs") == 1
    }
    if followed:
        on = " and on ".join(sorted(followed, reverse=True))
        notes.append(
            f"Training on {on} was followed in a single run; intervals there are those "
            "of the probes, and do not hold what another run would change."
        )
    notes.append(
        "Intervals hold the choice of initial weights, not that of distilling a set again."
    )
    return notes


def _networks(record: Record) -> Iterator[Mapping[str, Any]]:
    if record.experiment == "recognition":
        for name, about in record.get("networks").items():
            if name != "convnet16":
                yield about
    elif record.experiment == "mixing":
        yield from (row["network"] for row in record.get("rows").values())
    elif record.experiment == "dynamics":
        yield {**record.get("model"), "model": record.get("model", "name")}
    else:
        name = record.config.get("model")
        group = record.config.get(str(name))
        if isinstance(group, Mapping):
            yield {**group, "model": name}


def _facts(collection: Collection) -> list[tuple[str, str]]:
    records = collection.records
    environments = [record.get("environment") for record in records]

    def all_of(key: str) -> str:
        return ", ".join(sorted({str(e[key]) for e in environments if key in e}))

    methods = [
        NAMES[m]
        for m in claims.METHODS
        if any(r.config.get("method") == m for r in records if r.experiment == "distill")
    ]
    ipcs = sorted(
        {int(r.config.get("ipc") or 0) for r in records if r.experiment == "distill"}
    )
    nets = sorted({claims.network(n) for r in records for n in _networks(r)})
    name = str(collection.dataset["name"])
    dates = sorted({str(e["finished"])[:10] for e in environments if "finished" in e})
    facts = [
        ("Data", f"{DATA_NAMES.get(name, name)} ({collection.dataset['source']})"),
        ("Sets", f"{', '.join(methods)}; {listed(ipcs)} per class" if methods else "–"),
        ("Networks", "; ".join(nets) or "–"),
        (
            "Experiments",
            ", ".join(
                f"{kind.replace('_', ' ')} ×{count}"
                if count > 1
                else kind.replace("_", " ")
                for kind, count in Counter(r.experiment for r in records).items()
            ),
        ),
        ("Device", f"{all_of('device')}; {all_of('machine')}"),
        (
            "Versions",
            f"distilljax {all_of('distilljax')}, jax {all_of('jax')}, Python "
            f"{all_of('python')}",
        ),
        ("Total time", duration(sum(map(seconds_of, records)))),
    ]
    if dates:
        facts.append(("Finished", " to ".join(dict.fromkeys((dates[0], dates[-1])))))
    return facts


def _link(folder: str, base: pathlib.Path) -> Markup:
    relative = os.path.relpath(folder, base)
    where = urllib.parse.quote(pathlib.Path(relative).as_posix())
    return el("a", el("code", folder), href=f"{where}/")


def _gibibytes(record: Record) -> str:
    if "peak_memory_bytes" not in record.summary:
        return "–"
    return f"{record.number('peak_memory_bytes') / 2**30:.1f} GiB"


def _in_lines(command: str) -> str:
    """A command with an option a line, as a shell takes it."""
    words = shlex.split(command)
    first = [i for i, word in enumerate(words) if word.startswith("--")]
    if not first:
        return command
    head, options = words[: first[0]], words[first[0] :]
    return " \\\n    ".join([shlex.join(head), *map(shlex.quote, options)])


def _appendix(collection: Collection, base: pathlib.Path) -> list[Markup]:
    rows = []
    for record in collection.records:
        config = json.dumps(record.config, indent=2, sort_keys=True, ensure_ascii=False)
        rows.append(
            el(
                "article",
                el("h3", record.experiment.replace("_", " "), class_="run"),
                el("p", _link(record.folder, base)),
                el("p", title_of(record), class_="rule"),
                el(
                    "p",
                    f"{duration(seconds_of(record))}; {_gibibytes(record)} at most; seed "
                    f"{record.config.get('seed', '–')}; "
                    f"{record.get('environment', 'device')}; jax "
                    f"{record.get('environment', 'jax')}",
                    class_="rule",
                ),
                el("pre", el("code", _in_lines(record.command))),
                el("details", el("summary", "settings"), el("pre", el("code", config))),
                class_="record",
            )
        )
    return rows


def _not_there(
    collection: Collection, verdicts: Sequence[Verdict], base: pathlib.Path
) -> Markup:
    items: list[Content] = []
    for run in collection.unfinished:
        command = el("pre", el("code", _in_lines(run.command)))
        where = _link(run.folder, base)
        items.append(
            [f"Unfinished: {run.experiment} in ", where, "; it goes on by", command]
        )
    items += collection.missing
    without: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.outcome == claims.NO_RECORD:
            without.setdefault(verdict.claim.experiment, []).append(verdict.claim.id)
    for experiment, ids in without.items():
        links = [
            [", " if number else "", el("a", id_, href=f"#claim-{id_}")]
            for number, id_ in enumerate(ids)
        ]
        items.append([f"No finished record of experiments.{experiment}: ", links, "."])
    for run in collection.others:
        items.append([f"Not read here: {run.experiment} in ", _link(run.folder, base), "."])
    if not items:
        return el("p", "Nothing: every claim has a record, and every run is finished.")
    return el("ul", [el("li", item) for item in items], class_="missing")


def page(collection: Collection, title: str, base: pathlib.Path) -> str:
    """The whole document; `base` is the folder that it will lie in."""
    verdicts = claims.judge(collection.records)
    sections = []
    for section in SECTIONS:
        cards = [card(v) for v in verdicts if v.claim.section == section.key]
        name = claims.SECTIONS[section.key]
        mark = _section_mark(section.key)
        sections.append(
            el(
                "section",
                el("h2", el("span", mark, class_="mark") if mark else None, name),
                el("p", section.text, class_="intro"),
                cards,
                section.contents(collection.records),
                id=f"sec-{section.key.replace('.', '-')}",
            )
        )
    ends = (
        ("missing", "What is missing", _not_there(collection, verdicts, base)),
        ("runs", "Appendix: the runs", _appendix(collection, base)),
    )
    for key, name, content in ends:
        sections.append(el("section", el("h2", name), content, id=f"sec-{key}"))
    links = [("overview", "Verdicts")]
    links += [(s.key.replace(".", "-"), _short(s.key)) for s in SECTIONS]
    links += [("missing", "Missing"), ("runs", "Runs")]
    facts = [el("div", el("dt", name), el("dd", text)) for name, text in _facts(collection)]
    hero = el(
        "header",
        el("p", "distilljax · study report", class_="kicker"),
        el("h1", title),
        el("p", lead(verdicts), class_="lead"),
        tally(verdicts),
        el("dl", facts, class_="facts"),
        el(
            "aside",
            el("strong", "How to read the numbers"),
            el("ul", [el("li", note) for note in scale_notes(collection)]),
            class_="note",
        ),
        class_="hero",
    )
    summary = el(
        "section",
        el("h2", "Verdicts"),
        el(
            "p",
            "Supported: the 95 % interval of the deciding number lies wholly on the "
            "claim's side of its threshold. Not supported: wholly on the other. Undecided: "
            "it holds the threshold, or one network or run gives no interval. A claim "
            "about several sets is as strong as its worst, whose number is shown; where "
            "the best or the worst of several decides by being picked, its interval is "
            "widened for their number (Bonferroni).",
            class_="intro",
        ),
        overview(verdicts),
        KEY,
        id="sec-overview",
    )
    address = f"https://arxiv.org/abs/{reference.ARXIV}"
    footer = el(
        "footer",
        el(
            "p",
            f"The paper: {reference.AUTHORS}, “{reference.TITLE}”, {reference.VENUE}, ",
            el("a", f"arXiv {reference.ARXIV}", href=address),
            f". Its numbers are printed in released notebooks, or {reference.PRECISION}; "
            "one network or run each.",
        ),
        el("p", "Made by ", el("code", "python -m experiments.report"), "."),
    )
    navigation = el(
        "nav",
        el("ol", [el("li", el("a", text, href=f"#sec-{key}")) for key, text in links]),
        aria_label="Sections",
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Markup(STYLE)),
    )
    body = el(
        "body",
        el("a", "Skip to the verdicts", href="#sec-overview", class_="skip"),
        hero,
        el("div", navigation, el("main", summary, sections), class_="frame"),
        footer,
    )
    return "<!doctype html>\n" + el("html", head, body, lang="en") + "\n"


def _section_mark(key: str) -> str | None:
    return f"§ {key}" if key[0].isdigit() else None


def _short(key: str) -> str:
    return {
        "standard": "Worth",
        "3": "§ 3 Stand-in",
        "4.1": "§ 4.1 Agreement",
        "4.2": "§ 4.2 Recognition",
        "4.3": "§ 4.3 Curvature",
        "5.2": "§ 5.2 Influence",
        "5": "§ 5 Attributes",
        "beyond": "Beyond",
    }[key]


# --- what else is written --------------------------------------------------------------


def plain(verdicts: Sequence[Verdict], base: pathlib.Path) -> dict[str, Any]:
    """The verdicts as JSON can hold them."""

    def of(reading: Reading) -> dict[str, Any]:
        found = reading._asdict()
        ends = reading.interval
        found["interval"] = None if ends is None else [ends.low, ends.high]
        found["outcome"] = reading.outcome()
        if reading.folder:
            found["folder"] = pathlib.Path(os.path.relpath(reading.folder, base)).as_posix()
        return found

    def figure(verdict: Verdict) -> str | None:
        for reading in verdict.readings:
            path = pathlib.Path(reading.folder, verdict.claim.figure)
            if reading.folder and path.exists():
                return pathlib.Path(os.path.relpath(path, base)).as_posix()
        return None

    return {
        "counts": {kind: _counts(verdicts)[kind] for kind in claims.OUTCOMES},
        "claims": [
            {
                "id": v.claim.id,
                "section": v.claim.section,
                "statement": v.claim.statement,
                "rule": v.claim.rule,
                "paper": v.claim.paper,
                "verdict": v.outcome,
                "deciding": None
                if v.deciding is None
                else {
                    **of(v.deciding.reading),
                    "level": 1 - v.deciding.alpha,
                    "interval_at_level": v.deciding.interval(),
                },
                "readings": [of(reading) for reading in v.readings],
                "figure": figure(v),
            }
            for v in verdicts
        ],
    }


COLOURS = {
    claims.SUPPORTED: "green",
    claims.NOT_SUPPORTED: "red",
    claims.UNDECIDED: "yellow",
    claims.NO_RECORD: "bright_black",
}


def show(verdicts: Sequence[Verdict]) -> None:
    """Prints the table of verdicts."""
    table = Table(title="Verdicts", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("verdict", "sec.", "claim", "ours (95 %)", "paper"):
        table.add_column(column, no_wrap=column == "verdict")
    for verdict in verdicts:
        ours, theirs = "–", None
        if verdict.deciding is not None:
            reading, alpha = verdict.deciding
            interval = " ".join(filter(None, (ends(reading, alpha), level(alpha))))
            ours = spelt(reading.value or 0.0, reading.unit)
            ours += f" ({interval})" if ends(reading, alpha) else ""
            ours += f"; {named(reading)}; {reading.n}"
            theirs = paper_number(reading)
        kind = verdict.outcome
        table.add_row(
            f"[{COLOURS[kind]}]{SYMBOLS[kind]} {kind}[/]",
            verdict.claim.section,
            verdict.claim.id,
            ours,
            theirs or verdict.claim.paper,
        )
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 150)
    console.print(table)


def run(config: Config) -> dict[str, Any]:
    """Writes the page and `verdicts.json`; returns what the latter holds.

    Raises:
      InputError: records that cannot be used; a page that cannot be written.
    """
    if not config.records:
        raise FieldError("records", "", "name a folder of runs")
    root = pathlib.Path(config.records).expanduser()
    collection = collect(root, config.dataset)
    out = pathlib.Path(config.out).expanduser() if config.out else root / "report.html"
    text = page(collection, config.title, out.parent)
    verdicts = claims.judge(collection.records)
    found = {"dataset": dict(collection.dataset), **plain(verdicts, out.parent)}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
        write_json(out.with_name("verdicts.json"), found)
    except OSError as error:
        raise InputError(
            f"cannot write to {out.parent} ({error.strerror}); choose another --out"
        ) from None
    show(verdicts)
    print(f"{len(text.encode()) / 1e6:.1f} MB in {out}; verdicts.json lies beside it")
    return json.loads(json.dumps(found))


def main(config: Config) -> None:
    """Entry of the command line."""
    run(config)


if __name__ == "__main__":
    launch.main(Config, main)
