"""Claims: functions of records, with a verdict that follows from their numbers.

A record is what a run left: its `config.json` and its `summary.json`. A claim takes from
them its readings, numbers with a 95 % interval and a threshold, and the verdict follows
from these alone:

  supported      the interval lies wholly on the claim's side of the threshold;
  not supported  it lies wholly on the other side;
  undecided      it holds the threshold, or there is no interval: a single network or run;
  no record      there is no reading.

A count has no interval but two one-sided p-values, of as many by chance and of as few, and
the one of a side is to be at most what an interval leaves there. Both hold the count
itself, which chance may have most of the time: where one is 1 the other need not be near 0.

A claim about several sets, networks or iterations joins its readings in one of two ways.
`Every`: all must be supported, each at 95 % (an intersection-union test needs no
correction, Berger 1982); one failure refutes it, and since the worst of m is picked for
that, in an interval of level 1 - 0.05 / m (Bonferroni). `Some`: one supported reading
suffices, in an interval of level 1 - 0.05 / m, and all must fail, each at 95 %, to refute
it. So a verdict is wrong in about one of twenty cases at most; the verdicts of all claims
together are not corrected for each other. A set that was asked for and not looked at keeps
`Every` from being supported.

Intervals over networks are Student's, of differences network by network where two numbers
come from the same networks. They hold the choice of the initial weights (and of random
real images), not that of distilling the set again: for that the report takes several
studies (`experiments.report.outer_seeds`). Where all networks agree to the last
digit, the rounding of a share of N images to 1 / N is all the spread there is: its
standard deviation 1 / (N sqrt(12)) is the least that an interval assumes, and where N is
not recorded there is no interval. In one run the probes' standard error gives the
interval, which does not hold what another run would change; a quantity that is exact on
its images then has none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from distilljax.analysis.statistics import ALPHA, Interval
from distilljax.types import InputError
from experiments.lab.paper import IPC, WIDTH, Section

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"

UNDECIDED, NO_RECORD = "undecided", "no record"

OUTCOMES = (SUPPORTED, NOT_SUPPORTED, UNDECIDED, NO_RECORD)

NAMES = {
    "bptt": "BPTT",
    "tm": "TM",
    "gm": "GM",
    "dm": "DM",
    "random": "random real images",
    "herding": "herded real images",
    "test": "test images",
}

MATCHING_DYNAMICS, MATCHING_STATISTICS = ("bptt", "tm"), ("gm", "dm")

METHODS = (*MATCHING_DYNAMICS, *MATCHING_STATISTICS)

Summary = TypeVar("Summary", bound=Mapping[str, Any])
Value = TypeVar("Value")
Unit = Literal["points", "percent", "ratio", "correlation", "p", "coherence"]

SIGNED: tuple[Unit, ...] = ("points", "correlation", "coherence")


class Record(NamedTuple, Generic[Summary]):
    """A finished run."""

    experiment: str  # without `experiments.`
    folder: str  # where it lies
    config: Mapping[str, Any]
    command: str
    summary: Summary  # checked, see `records.checked`


def malformed(record: Record[Any], path: str, wanted: str, found: Any) -> InputError:
    """Returns the error of a value in `summary.json` that cannot be."""
    return InputError(
        f"{record.folder}/summary.json: {path} is {str(found)[:40]!r}, expected {wanted}; "
        "the file is damaged or of another version: run the experiment again"
    )


def entry(record: Record[Any], path: str, found: Mapping[str, Value], name: str) -> Value:
    """Returns `found[name]`, where `found` lies at `path` of the record.

    For names that another part of the record gives, which its type cannot promise.

    Raises:
      InputError: there is no such name.
    """
    if name not in found:
        raise InputError(
            f"{record.folder}/summary.json has no {path}.{name}, so another version of "
            f"experiments.{record.experiment} wrote it; run that again"
        )
    return found[name]


class Reading(NamedTuple):
    """One number that a claim goes by.

    Without a value: a set that was not looked at, or, where `folder` says whose record it
    is, one on which there is no such number, for the reason that is in `note`.
    """

    method: str
    unit: Unit
    threshold: float
    above: bool  # the claim's side
    value: float | None = None
    interval: Interval | None = None
    p: float | None = None  # one-sided, of the claim's side; in place of an interval
    p_other: float | None = None  # of the other side; None where it is not known
    label: str = ""  # of the set
    where: str = ""  # which network, iteration or number of images
    n: str = ""  # "5 networks"
    paper: float | None = None  # the same number there
    scale: str = ""  # network, data, number of images
    note: str = ""
    folder: str = ""  # of the record

    def outcome(self, alpha: float = ALPHA) -> str:
        """See the head of the module."""
        if self.value is None:
            return UNDECIDED if self.folder else NO_RECORD
        if self.p is not None:
            # An interval of level 1 - alpha leaves alpha / 2 on either side.
            if self.p <= alpha / 2:
                return SUPPORTED
            refuted = self.p_other is not None and self.p_other <= alpha / 2
            return NOT_SUPPORTED if refuted else UNDECIDED
        if self.interval is None:
            return UNDECIDED
        low, high = self.interval.at(self.value, alpha)
        if not self.above:
            low, high = -high, -low
        threshold = self.threshold if self.above else -self.threshold
        if low >= threshold:
            return SUPPORTED
        return NOT_SUPPORTED if high < threshold else UNDECIDED

    def margin(self) -> float:
        """How far on the claim's side, in half-widths of the interval."""
        if self.value is None:
            return math.inf
        if self.p is not None:
            return 0.5 - self.p
        distance = (self.value - self.threshold) * (1 if self.above else -1)
        if self.interval is None:
            return 0.0
        half = (self.interval.high - self.interval.low) / 2
        return distance / half if half else math.copysign(math.inf, distance)


class Every(NamedTuple):
    """All of them hold."""

    parts: Sequence["Node"]


class Some(NamedTuple):
    """At least one of them holds."""

    parts: Sequence["Node"]


Node = Reading | Every | Some


def all_readings(node: Node) -> list[Reading]:
    """All readings of a claim, in order."""
    if isinstance(node, Reading):
        return [node]
    return [found for part in node.parts for found in all_readings(part)]


def judge_node(node: Node, alpha: float = ALPHA) -> str:
    """The verdict on what is joined; see the head of the module."""
    if isinstance(node, Reading):
        return node.outcome(alpha)
    known = [part for part in node.parts if judge_node(part) != NO_RECORD]
    if not known:
        return NO_RECORD
    holds, fails = (SUPPORTED, NOT_SUPPORTED)
    if isinstance(node, Some):
        holds, fails = fails, holds
    if any(judge_node(part, alpha / len(known)) == fails for part in known):
        return fails
    # A set that is missing may be the one on which every set's claim fails.
    whole = isinstance(node, Some) or len(known) == len(node.parts)
    if whole and all(judge_node(part, alpha) == holds for part in known):
        return holds
    return UNDECIDED


class Deciding(NamedTuple):
    """The reading that a verdict hangs on, and the level at which it is read."""

    reading: Reading
    alpha: float

    def interval(self) -> tuple[float, float] | None:
        """Of level 1 - `alpha`."""
        value, interval = self.reading.value, self.reading.interval
        if value is None or interval is None:
            return None
        return interval.at(value, self.alpha)


def deciding_reading(node: Node, alpha: float = ALPHA) -> Deciding | None:
    """The worst of `Every`, the best of `Some`; where being picked decides, widened."""
    if isinstance(node, Reading):
        return None if node.value is None else Deciding(node, alpha)
    known = [part for part in node.parts if judge_node(part) != NO_RECORD]
    said = judge_node(node, alpha)
    if said == NOT_SUPPORTED if isinstance(node, Every) else said != NOT_SUPPORTED:
        alpha /= max(len(known), 1)
    found = [one for part in known if (one := deciding_reading(part, alpha)) is not None]
    chosen = min if isinstance(node, Every) else max
    return chosen(found, key=lambda one: one.reading.margin(), default=None)


class Claim(NamedTuple):
    """A statement and how records decide it."""

    id: str
    section: Section  # of the report
    statement: str
    rule: str  # what is compared, and how several readings are joined
    paper: str  # what the paper, or `source`, has, in a few words
    experiment: str  # whose records are read
    figure: str  # the picture of that experiment
    read: Callable[[Sequence[Record]], Node]
    source: str = ""  # of a claim that later papers lead one to expect: their arXiv numbers

    def stated(self) -> str:
        """Returns what the paper has, or what `source` leads one to expect."""
        return f"expected by {self.source}: {self.paper}" if self.source else self.paper

    def judge(self, records: Sequence[Record]) -> "Verdict":
        """The verdict of these records; those of other experiments do not matter.

        Raises:
          InputError: a record makes one of the numbers infinite or not a number.
        """
        return self.verdict(self.node(records))

    def node(self, records: Sequence[Record]) -> Node:
        """Returns the readings of the records that are of the claim's experiment."""
        return self.read([r for r in records if r.experiment == self.experiment])

    def verdict(self, node: Node) -> "Verdict":
        """The verdict of these readings.

        Raises:
          InputError: one of the numbers is infinite or not a number.
        """
        readings = tuple(all_readings(node))
        for reading in readings:
            _check_finite(self.id, reading)
        return Verdict(self, judge_node(node), readings, deciding_reading(node))


def _check_finite(claim: str, reading: Reading) -> None:
    ends = (reading.interval.low, reading.interval.high) if reading.interval else ()
    found = reading.value, reading.p, reading.p_other, *ends
    numbers = [x for x in found if x is not None]
    if not all(math.isfinite(x) for x in numbers):
        about = ", ".join(word for word in (reading.label, reading.where) if word)
        raise InputError(
            f"{reading.folder}/summary.json: the claim {claim!r} comes to {numbers[0]} for "
            f"{about or reading.method}; a number there is zero or damaged: run the "
            "experiment again"
        )


class Verdict(NamedTuple):
    """A claim, judged."""

    claim: Claim
    outcome: str
    readings: tuple[Reading, ...]
    deciding: Deciding | None

    def absent(self) -> list[str]:
        """Methods that the claim is about and no record has."""
        return [NAMES[r.method] for r in self.readings if not r.folder]


NO_SPREAD = "no interval: all networks agree to the last digit"

ONE_RUN = (
    "one run: the interval is that of the probes, and does not hold what another run "
    "would change"
)

ONE_RUN_EXACT = "one run, and exact on its images: nothing is known of another run"


def recorded_interval(
    record: Record[Any], path: str, ends: Sequence[float], freedom: float = math.inf
) -> Interval:
    """Returns an interval that the record holds under `path`."""
    if len(ends) != 2 or ends[0] > ends[1]:
        raise malformed(record, path, "two rising numbers", list(ends))
    return Interval(float(ends[0]), float(ends[1]), freedom)


def describe_network(described: Mapping[str, Any], paper_width: int = WIDTH) -> str:
    """A network in a few words, with the paper's width where it is another."""
    key, width = described.get("model", "network"), described.get("width")
    names = {"convnet": "ConvNet", "mlp": "MLP", "resnet": "ResNet", "vgg": "VGG"}
    words = names.get(str(key), str(key))
    if width is None:
        return words
    if key != "convnet" or width == paper_width:
        return f"{words}, width {width}"
    return f"{words}, width {width} (paper: {paper_width})"


def configured_network(record: Record) -> str:
    """The network of `config.json`."""
    name = record.config.get("model")
    group = record.config.get(str(name))
    return describe_network(
        {"model": name, **(group if isinstance(group, Mapping) else {})}
    )


def per_class(number: int) -> str:
    """How large a set is."""
    return f"{number} per class"


def paper_value(number: float | None, ipc: float) -> float | None:
    """The paper's number, beside sets of the size that it has."""
    return number if ipc == IPC else None


def absent_readings(
    methods: Sequence[str], found: Sequence[Node], **fields: Any
) -> list[Node]:
    """A reading without a value for each method that none of `found` is about."""
    seen = {reading.method for node in found for reading in all_readings(node)}
    return [Reading(method, **fields) for method in methods if method not in seen]


def by_method(rows: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Returns labels and methods, in the order of `METHODS`; other methods last."""
    found = [(label, str(row["method"])) for label, row in rows.items()]
    order = {method: number for number, method in enumerate(METHODS)}
    return sorted(found, key=lambda one: order.get(one[1], len(order)))


def in_order(found: Sequence[Node]) -> list[Node]:
    """Returns readings in the order of `METHODS`."""
    order = {method: number for number, method in enumerate(METHODS)}
    return sorted(
        found, key=lambda node: order.get(all_readings(node)[0].method, len(order))
    )


def paired(
    record: Record[Any], path: str, ours: Sequence[float], others: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns two rows of numbers of the same networks, f64[n] each.

    Raises:
      InputError: there are not as many of one as of the other.
    """
    if len(ours) != len(others):
        raise InputError(
            f"{record.folder}/summary.json: {path} has {len(ours)} networks of one set and "
            f"{len(others)} of another, which cannot be paired; run the experiment again"
        )
    return np.array(ours, np.float64), np.array(others, np.float64)


def set_name(path: str) -> str:
    """What a set is called: runs/x/distilled.npz and x.npz are x."""
    *folders, file = path.split("/")
    stem = file.removesuffix(".npz")
    return folders[-1] if stem == "distilled" and folders else stem


EVERY = (
    "Supported if all of these intervals lie on that side; not supported if one lies "
    "wholly on the other, widened for their number."
)


def spelt(value: float, unit: Unit) -> str:
    """A number with its unit."""
    if unit == "points":
        return f"{signed(100 * value, 1)} points"
    if unit == "percent":
        return f"{100 * value:.1f} %"
    if unit == "ratio":
        return f"{minus(f'{value:.2f}')}×"
    if unit == "p":
        return f"p = {value:.2g}" if value >= 0.001 else "p < 0.001"
    return signed(value, 2)


def bound(reading: Reading) -> str:
    """The claim's side of the threshold, in words."""
    side = "at least" if reading.above else "at most"
    if not reading.threshold:
        return f"{side} 0"
    return f"{side} {spelt(reading.threshold, reading.unit)}"


def spelt_interval(low: float, high: float, unit: Unit) -> str:
    """Both ends, without the unit; a share is shown as far as shares go, 0 to 100 %."""
    if unit == "points":
        return f"{signed(100 * low, 1)} to {signed(100 * high, 1)}"
    if unit == "percent":
        return f"{100 * max(low, 0):.1f} to {100 * min(high, 1):.1f}"
    if unit == "ratio":
        return f"{minus(f'{low:.2f}')} to {minus(f'{high:.2f}')}"
    return f"{signed(low, 2)} to {signed(high, 2)}"


def signed(value: float, digits: int) -> str:
    """With its sign, a true minus; one digit more where all would be zero."""
    for places in (digits, digits + 1):
        text = f"{value:+.{places}f}"
        if float(text):
            return minus(text)
    return f"{0:.{digits}f}"


def minus(text: str) -> str:
    """With a true minus sign."""
    return text.replace("-", "−")
