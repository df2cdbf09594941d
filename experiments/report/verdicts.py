"""Verdicts on the claims of all experiments, in numbers, words and pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from distilljax.analysis.statistics import ALPHA
from experiments.lab import claims
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, el
from experiments.lab.later import LATER
from experiments.lab.paper import OURS, SETTING, Section
from experiments.report import outer_seeds


def judge(
    studies: Sequence[Sequence[claims.Record[Any]]], table: Mapping[str, Experiment]
) -> list[claims.Verdict]:
    """Returns the verdict on every claim, by section, then in the order of the table.

    Args:
      studies: the records of a study, or of several that differ in their seed.
      table: the experiments by name.
    """
    verdicts = []
    for experiment in table.values():
        verdicts += [outer_seeds.judge(claim, studies) for claim in experiment.claims]
    return sorted(verdicts, key=lambda verdict: verdict.claim.section.order)


def sections(table: Mapping[str, Experiment]) -> list[Section]:
    """Returns the sections of the page, in order.

    Raises:
      ValueError: two sections with one key.
    """
    found = {
        section
        for experiment in table.values()
        for section in (
            *(section for section, _ in experiment.contents),
            *(claim.section for claim in experiment.claims),
        )
    }
    keys = Counter(section.key for section in found)
    if twice := [key for key, number in keys.items() if number > 1]:
        raise ValueError(f"two sections have the key {twice[0]!r}")
    return sorted(found, key=lambda section: section.order)


SYMBOLS = {
    claims.SUPPORTED: "✓",
    claims.NOT_SUPPORTED: "✕",
    claims.UNDECIDED: "?",
    claims.NO_RECORD: "–",
}


def badge(outcome: str) -> Markup:
    """Returns a verdict as a sign and words."""
    return el(
        "span",
        el("span", SYMBOLS[outcome], class_="sign", aria_hidden="true"),
        outcome,
        class_=f"badge {outcome.replace(' ', '-')}",
    )


def interval_text(reading: claims.Reading, alpha: float = ALPHA) -> str | None:
    """Returns the interval; None where there is none, or the number is a count."""
    found = claims.Deciding(reading, alpha).interval()
    if found is None or found[0] == found[1]:
        return None
    return claims.spelt_interval(*found, reading.unit)


def level_text(alpha: float) -> str:
    """Returns the level of an interval, where it is not 95 %."""
    return "" if alpha == ALPHA else f"at {100 * (1 - alpha):.3g} %"


def number_text(reading: claims.Reading, alpha: float = ALPHA) -> Markup:
    """Returns the number with its interval."""
    value = "–" if reading.value is None else claims.spelt(reading.value, reading.unit)
    interval = interval_text(reading, alpha)
    return el(
        "span",
        el("strong", value),
        el("span", f"({interval})", class_="ends") if interval else None,
        class_="number",
    )


def reading_name(reading: claims.Reading) -> str:
    """Returns the name of a reading among those of its claim."""
    method = claims.NAMES.get(reading.method, reading.method)
    return f"{method}, {reading.where}" if reading.where else method


class Axis(NamedTuple):
    """The horizontal axis of the pictures of a claim."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Returns the place of a value, in units of the picture, clipped to it."""
        share = (value - self.low) / (self.high - self.low)
        return 6 + 228 * min(max(share, 0.0), 1.0)


def axis(readings: Sequence[claims.Reading]) -> Axis | None:
    """Returns an axis that holds all numbers and thresholds, and most of the intervals."""
    core = [r.threshold for r in readings]
    core += [x for r in readings for x in (r.value, r.paper) if x is not None]
    if not core:
        return None
    width = (max(core) - min(core)) or abs(core[0]) or 1.0
    ends = [e for r in readings if r.interval for e in r.interval[:2]]
    low = max(min([*core, *ends]), min(core) - 0.75 * width)
    high = min(max([*core, *ends]), max(core) + 0.75 * width)
    # Every number may be the same, as where two sets reach 100 %.
    margin = 0.05 * (high - low) or 0.5 * width
    return Axis(low - margin, high + margin)


def forest(reading: claims.Reading, scale: Axis) -> Markup:
    """Draws the number, its interval, the threshold and the paper's number on a line."""
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


def paper_number(reading: claims.Reading) -> str | None:
    """Returns the paper's number beside a reading, if there is one."""
    return None if reading.paper is None else claims.spelt(reading.paper, reading.unit)


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


def shared_note(verdict: claims.Verdict) -> str | None:
    """Returns the note that all readings share."""
    notes = {reading.note for reading in verdict.readings if reading.folder}
    return next(iter(notes)) or None if len(notes) == 1 else None


def readings_table(verdict: claims.Verdict) -> Markup | None:
    """Returns all readings of a claim, each with a picture on the same axis."""
    if not verdict.readings:
        return None
    scale = axis(verdict.readings)
    drawn = scale is not None and verdict.readings[0].unit != "p"
    rows = []
    shared = shared_note(verdict)
    for reading in verdict.readings:
        label = None if reading.label in ("", reading.method) else reading.label
        name = [
            el("strong", claims.NAMES.get(reading.method, reading.method)),
            f" {reading.where}" if reading.where else None,
            [
                el("span", text, class_="sub")
                for text in (label, reading.scale, reading.note)
                if text and text != shared
            ],
        ]
        ours = [
            number_text(reading),
            el("span", reading.n, class_="sub") if reading.n else None,
        ]
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


def card(verdict: claims.Verdict) -> Markup:
    """Returns a claim with the numbers that its verdict rests on."""
    claim = verdict.claim
    source = f"Expected by {claim.source}" if claim.source else "Paper"
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
        el("p", el("strong", f"{source}: "), claim.paper, ".", class_="rule"),
        class_=f"claim {verdict.outcome.replace(' ', '-')}",
        id=f"claim-{claim.id}",
    )


def overview(verdicts: Sequence[claims.Verdict]) -> Markup:
    """Returns the table of all claims, a row each."""
    rows = []
    for verdict in verdicts:
        claim = verdict.claim
        ours: Content = "–"
        theirs = claim.stated()
        if verdict.deciding is not None:
            reading, alpha = verdict.deciding
            where = f"{reading_name(reading)}; {reading.n}"
            if reading.note in (claims.ONE_RUN, claims.ONE_RUN_EXACT):
                where += "; no other run"
            if level_text(alpha) and interval_text(reading, alpha):
                where += f"; interval {level_text(alpha)}, for it was picked"
            ours = [
                number_text(reading, alpha),
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
                    el("span", claim.section.place, class_="sub"),
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


PAPER_COLUMN = f"paper ({SETTING})"


def count_outcomes(verdicts: Sequence[claims.Verdict]) -> Counter[str]:
    """Returns the number of verdicts of each kind."""
    return Counter(verdict.outcome for verdict in verdicts)


def tally(verdicts: Sequence[claims.Verdict]) -> Markup:
    """Returns the number of verdicts of each kind, as tiles."""
    counts = count_outcomes(verdicts)
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


def lead(verdicts: Sequence[claims.Verdict]) -> str:
    """Returns the result in a sentence."""
    of_paper = [v for v in verdicts if v.claim.section.place not in (OURS, LATER)]
    counts = count_outcomes(of_paper)
    known = len(of_paper) - counts[claims.NO_RECORD]
    said = (
        f"Of {len(of_paper)} claims of the paper, these runs support "
        f"{counts[claims.SUPPORTED]}, contradict {counts[claims.NOT_SUPPORTED]} and leave "
        f"{counts[claims.UNDECIDED]} undecided"
    )
    if known < len(of_paper):
        verb = "was" if counts[claims.NO_RECORD] == 1 else "were"
        said += f"; {counts[claims.NO_RECORD]} {verb} not looked at"
    ours = [v for v in verdicts if v.claim.section.place == OURS]
    supported = count_outcomes(ours)[claims.SUPPORTED]
    said += f". Of {len(ours)} claims of our own they support {supported}"
    later = [v for v in verdicts if v.claim.section.place == LATER]
    counts = count_outcomes(later)
    known = len(later) - counts[claims.NO_RECORD]
    if not known:
        return f"{said}."
    return (
        f"{said}; of {known} expectations that later papers raise, "
        f"{counts[claims.SUPPORTED]} hold and {counts[claims.NOT_SUPPORTED]} do not."
    )
