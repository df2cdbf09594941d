"""The page of the report: one HTML document that needs nothing else."""

import json
import os
import pathlib
import shlex
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.lab import paper
from experiments.lab.claims import NO_RECORD, Record, Verdict, describe_network
from experiments.lab.experiment import Fact
from experiments.lab.html import STYLE, Content, Markup, el
from experiments.lab.parts import listed
from experiments.lab.progress import duration
from experiments.report.collect import Collection, Table
from experiments.report.verdicts import (
    KEY,
    card,
    lead,
    overview,
    sections,
    tally,
)

DATA_NAMES = {
    "cifar10": "CIFAR-10",
    "embedded Fashion-MNIST": "Fashion-MNIST, the embedded 10,000 images",
}


def scale_notes(
    collection: Collection, table: Table, seeds: Sequence[int] = ()
) -> list[str]:
    """Returns how the runs differ from the paper's in scale, and what intervals hold."""
    notes = []
    name = str(collection.dataset["name"])
    if name != paper.DATASET:
        notes.append(
            f"The data are {DATA_NAMES.get(name, name)}; the paper's are CIFAR-10, and its "
            "numbers stand beside ours for orientation only."
        )
    widths = sorted(
        {
            int(network["width"])
            for network in _networks(collection, table)
            if network.get("model") == "convnet"
            and isinstance(network.get("width"), int)
            and network["width"] < paper.WIDTH
        }
    )
    if widths:
        notes.append(
            f"ConvNets of width {listed(widths)}, not {paper.WIDTH} as in the paper: "
            "a verdict here is one on these networks."
        )
    if seeds:
        every = ", ".join(map(str, seeds))
        notes.append(
            f"Numbers of the claims are means over {len(seeds)} studies (seeds {every}), "
            "each with experts, sets and networks of its own, and intervals are Student's "
            "over these: they hold the choice of the set. Tables and pictures are those of "
            f"seed {seeds[0]}."
        )
        return notes
    for name, records in collection.by_experiment().items():
        notes += table[name].notes(records)
    notes.append(
        "Intervals hold the choice of initial weights, not that of distilling a set again."
    )
    return notes


def _networks(collection: Collection, table: Table) -> Iterator[Mapping[str, Any]]:
    for record in collection.records:
        yield from table[record.experiment].networks(record)


def _facts(collection: Collection, table: Table) -> list[Fact]:
    records = collection.records
    environments = [record.summary["environment"] for record in records]

    def all_of(key: str) -> str:
        return ", ".join(sorted({str(e[key]) for e in environments if key in e}))

    nets = sorted({describe_network(n) for n in _networks(collection, table)})
    name = str(collection.dataset["name"])
    dates = sorted({str(e["finished"])[:10] for e in environments if "finished" in e})
    facts = [
        ("Data", f"{DATA_NAMES.get(name, name)} ({collection.dataset['source']})"),
        *(
            fact
            for name, own in collection.by_experiment().items()
            for fact in table[name].facts(own)
        ),
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
        ("Total time", duration(sum(map(_seconds, records)))),
    ]
    if dates:
        facts.append(("Finished", " to ".join(dict.fromkeys((dates[0], dates[-1])))))
    return facts


def _seconds(record: Record[Any]) -> float:
    """Returns the seconds that a run took."""
    found = record.summary["seconds"]
    if isinstance(found, Mapping):
        return float(found.get("total", found.get("measuring", 0.0)))
    return float(found)


def _link(folder: str, base: pathlib.Path) -> Markup:
    relative = os.path.relpath(folder, base)
    where = urllib.parse.quote(pathlib.Path(relative).as_posix())
    return el("a", el("code", folder), href=f"{where}/")


def _in_lines(command: str) -> str:
    """Returns a command with an option a line, as a shell takes it."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation that does not end
        return command
    first = [i for i, word in enumerate(words) if word.startswith("--")]
    if not first:
        return command
    head, options = words[: first[0]], words[first[0] :]
    return " \\\n    ".join([shlex.join(head), *map(shlex.quote, options)])


def _appendix(collection: Collection, table: Table, base: pathlib.Path) -> list[Markup]:
    rows = []
    for record in collection.records:
        environment = record.summary["environment"]
        gibibytes = record.summary["peak_memory_bytes"] / 2**30
        config = json.dumps(record.config, indent=2, sort_keys=True, ensure_ascii=False)
        rows.append(
            el(
                "article",
                el("h3", record.experiment.replace("_", " "), class_="run"),
                el("p", _link(record.folder, base)),
                el("p", table[record.experiment].title(record), class_="rule"),
                el(
                    "p",
                    f"{duration(_seconds(record))}; {gibibytes:.1f} GiB at most; seed "
                    f"{record.config.get('seed', '–')}; {environment['device']}; jax "
                    f"{environment['jax']}",
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


def _section(
    section: paper.Section,
    collection: Collection,
    table: Table,
    verdicts: Sequence[Verdict],
) -> Markup:
    """Returns a section: its claims, then what each experiment shows there."""
    by_experiment = collection.by_experiment()
    contents = [
        make(by_experiment.get(name, []))
        for name, experiment in table.items()
        for part, make in experiment.contents
        if part == section
    ]
    mark = f"§ {section.key}" if section.key[0].isdigit() else None
    return el(
        "section",
        el("h2", el("span", mark, class_="mark") if mark else None, section.heading),
        el("p", section.text, class_="intro"),
        [card(v) for v in verdicts if v.claim.section == section],
        contents,
        id=f"sec-{_address(section)}",
    )


def _address(section: paper.Section) -> str:
    return section.key.replace(".", "-")


def _hero(
    title: str,
    collection: Collection,
    table: Table,
    verdicts: Sequence[Verdict],
    seeds: Sequence[int],
) -> Markup:
    facts = _facts(collection, table)
    return el(
        "header",
        el("p", "distilljax · study report", class_="kicker"),
        el("h1", title),
        el("p", lead(verdicts), class_="lead"),
        tally(verdicts),
        el(
            "dl",
            [el("div", el("dt", name), el("dd", text)) for name, text in facts],
            class_="facts",
        ),
        el(
            "aside",
            el("strong", "How to read the numbers"),
            el("ul", [el("li", note) for note in scale_notes(collection, table, seeds)]),
            class_="note",
        ),
        class_="hero",
    )


def _summary(verdicts: Sequence[Verdict]) -> Markup:
    return el(
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


def _footer() -> Markup:
    return el(
        "footer",
        el(
            "p",
            f"The paper: {paper.AUTHORS}, “{paper.TITLE}”, {paper.VENUE}, ",
            el("a", f"arXiv {paper.ARXIV}", href=f"https://arxiv.org/abs/{paper.ARXIV}"),
            f". Its numbers are printed in released notebooks, or {paper.PRECISION}; "
            "one network or run each.",
        ),
        el("p", "Made by ", el("code", "python -m experiments.report"), "."),
    )


def _head(title: str) -> Markup:
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Markup(STYLE)),
    )


def page(
    collection: Collection,
    table: Table,
    verdicts: Sequence[Verdict],
    seeds: Sequence[int],
    title: str,
    base: pathlib.Path,
) -> str:
    """Returns the whole document.

    Args:
      collection: the records that are shown.
      table: the experiments by name.
      verdicts: on all claims, in the order of the page.
      seeds: of the studies that the verdicts are over; none where they are of one.
      title: of the page.
      base: folder that the page will lie in.
    """
    parts = sections(table)
    ends = (
        ("missing", "What is missing", _not_there(collection, verdicts, base)),
        ("runs", "Appendix: the runs", _appendix(collection, table, base)),
    )
    links = [
        ("overview", "Verdicts"),
        *((_address(section), section.short) for section in parts),
        ("missing", "Missing"),
        ("runs", "Runs"),
    ]
    navigation = el(
        "nav",
        el("ol", [el("li", el("a", text, href=f"#sec-{key}")) for key, text in links]),
        aria_label="Sections",
    )
    main = el(
        "main",
        _summary(verdicts),
        [_section(section, collection, table, verdicts) for section in parts],
        [
            el("section", el("h2", name), content, id=f"sec-{key}")
            for key, name, content in ends
        ],
    )
    body = el(
        "body",
        el("a", "Skip to the verdicts", href="#sec-overview", class_="skip"),
        _hero(title, collection, table, verdicts, seeds),
        el("div", navigation, main, class_="frame"),
        _footer(),
    )
    return "<!doctype html>\n" + el("html", _head(title), body, lang="en") + "\n"
