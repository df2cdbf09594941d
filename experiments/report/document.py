"""TODO."""

import json
import os
import pathlib
import shlex
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.lab.claims import (
    METHODS,
    NAMES,
    NO_RECORD,
    Record,
    Verdict,
    describe_network,
)
from experiments.lab.html import STYLE, Content, Markup, el
from experiments.lab.paper import ARXIV, AUTHORS, DATASET, PRECISION, TITLE, VENUE, WIDTH
from experiments.lab.progress import duration
from experiments.lab.sections import listed, seconds_of
from experiments.report.collect import Collection
from experiments.report.sections import SECTIONS, title_of
from experiments.report.verdicts import HEADINGS, KEY, card, judge, lead, overview, tally

DATA_NAMES = {
    "cifar10": "CIFAR-10",
    "embedded Fashion-MNIST": "Fashion-MNIST, the embedded 10,000 images",
}


def scale_notes(collection: Collection) -> list[str]:
    """How the runs differ from the paper's in scale."""
    notes = []
    name = str(collection.dataset["name"])
    if name != DATASET:
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
            and network["width"] < WIDTH
        }
    )
    if widths:
        notes.append(
            f"ConvNets of width {listed(widths)}, not {WIDTH} as in the paper: "
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
        for m in METHODS
        if any(r.config.get("method") == m for r in records if r.experiment == "distill")
    ]
    ipcs = sorted(
        {int(r.config.get("ipc") or 0) for r in records if r.experiment == "distill"}
    )
    nets = sorted({describe_network(n) for r in records for n in _networks(r)})
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
        if verdict.outcome == NO_RECORD:
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
    verdicts = judge(collection.records)
    sections = []
    for section in SECTIONS:
        cards = [card(v) for v in verdicts if v.claim.section == section.key]
        name = HEADINGS[section.key]
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
    address = f"https://arxiv.org/abs/{ARXIV}"
    footer = el(
        "footer",
        el(
            "p",
            f"The paper: {AUTHORS}, “{TITLE}”, {VENUE}, ",
            el("a", f"arXiv {ARXIV}", href=address),
            f". Its numbers are printed in released notebooks, or {PRECISION}; "
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
