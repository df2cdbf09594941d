"""What Yang et al. 2024 claim, each claim a function of records with a verdict.

A record is what a run left: its `config.json` and its `summary.json`. A claim takes from
them its readings, numbers with a 95 % interval and a threshold, and the verdict follows
from these alone:

  supported      the interval lies wholly on the claim's side of the threshold;
  not supported  it lies wholly on the other side;
  undecided      it holds the threshold, or there is no interval: a single network or run;
  no record      there is no reading.

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
real images), never that of distilling the set again. Where all networks agree to the last
digit, the rounding of a share of N images to 1 / N is all the spread there is: its
standard deviation 1 / (N sqrt(12)) is the least that an interval assumes, and where N is
not recorded there is no interval. In one run the probes' standard error gives the
interval, which does not hold what another run would change; a quantity that is exact on
its images then has none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from distilljax.types import InputError
from experiments import reference

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
UNDECIDED, NO_RECORD = "undecided", "no record"
OUTCOMES = (SUPPORTED, NOT_SUPPORTED, UNDECIDED, NO_RECORD)

ALPHA = 0.05
NAMES = {
    "bptt": "BPTT",
    "tm": "TM",
    "gm": "GM",
    "dm": "DM",
    "random": "random real images",
    "test": "test images",
}
MATCHING_DYNAMICS, MATCHING_STATISTICS = ("bptt", "tm"), ("gm", "dm")
METHODS = (*MATCHING_DYNAMICS, *MATCHING_STATISTICS)
RISE = range(30, 121)  # iterations in which curvature may rise above that on real images
RECOGNISED_AT, WHOLLY = 150, 0.98
TEST_GAIN = 0.02  # accuracy that test images still gain after `RECOGNISED_AT`
OUTSIDE = 0.01  # share of pixel values beyond 0..1 by more than half a grey level
CHANCES = 2  # times chance is well above it
HALF = 0.5

Unit = Literal["points", "percent", "ratio", "correlation", "p", "coherence"]
SIGNED: tuple[Unit, ...] = ("points", "correlation", "coherence")


class Record(NamedTuple):
    """A finished run."""

    experiment: str  # without `experiments.`
    folder: str  # where it lies
    config: Mapping[str, Any]
    command: str
    summary: Mapping[str, Any]

    def get(self, *keys: str) -> Any:
        """What `summary.json` holds under `keys`.

        Raises:
          InputError: it holds nothing there.
        """
        return _under(self.summary, keys, keys, self)

    def number(self, *keys: str) -> float:
        """A finite number of `summary.json`; see `get`."""
        return _finite(self.get(*keys), keys, self)

    def numbers(self, *keys: str) -> np.ndarray:
        """A list of finite numbers of `summary.json`, f64[n]; see `get`."""
        found = self.get(*keys)
        if not isinstance(found, list):
            raise _malformed(self, keys, "a list of numbers", found)
        return np.array([_finite(value, keys, self) for value in found])


def _under(value: Any, keys: Sequence[str], all_keys: Sequence[str], record: Record) -> Any:
    for depth, key in enumerate(keys, 1):
        if not isinstance(value, Mapping) or key not in value:
            missing = ".".join(all_keys[: len(all_keys) - len(keys) + depth])
            raise InputError(
                f"{record.folder}/summary.json has no {missing}, so another version of "
                f"experiments.{record.experiment} wrote it; run that again"
            )
        value = value[key]
    return value


def _finite(value: Any, keys: Sequence[str], record: Record) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise _malformed(record, keys, "a finite number", value)
    return float(value)


def _malformed(record: Record, keys: Sequence[str], wanted: str, found: Any) -> InputError:
    return InputError(
        f"{record.folder}/summary.json: {'.'.join(keys)} is {str(found)[:40]!r}, expected "
        f"{wanted}; the file is damaged or of another version: run the experiment again"
    )


class Interval(NamedTuple):
    """A 95 % interval, and how it grows with its level."""

    low: float
    high: float
    freedom: float = math.inf  # degrees; of the normal distribution where infinite

    def at(self, centre: float, alpha: float) -> tuple[float, float]:
        """The interval of level 1 - `alpha` about the same number."""
        factor = _quantile(alpha, self.freedom) / _quantile(ALPHA, self.freedom)
        return centre - (centre - self.low) * factor, centre + (self.high - centre) * factor


def _quantile(alpha: float, freedom: float) -> float:
    share = 1 - alpha / 2
    return float(ndtri(share) if math.isinf(freedom) else stdtrit(freedom, share))


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
            return NOT_SUPPORTED if self.p >= 1 - alpha / 2 else UNDECIDED
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


def readings(node: Node) -> list[Reading]:
    """All readings of a claim, in order."""
    if isinstance(node, Reading):
        return [node]
    return [found for part in node.parts for found in readings(part)]


def outcome(node: Node, alpha: float = ALPHA) -> str:
    """The verdict on what is joined; see the head of the module."""
    if isinstance(node, Reading):
        return node.outcome(alpha)
    known = [part for part in node.parts if outcome(part) != NO_RECORD]
    if not known:
        return NO_RECORD
    holds, fails = (SUPPORTED, NOT_SUPPORTED)
    if isinstance(node, Some):
        holds, fails = fails, holds
    if any(outcome(part, alpha / len(known)) == fails for part in known):
        return fails
    # A set that is missing may be the one on which every set's claim fails.
    whole = isinstance(node, Some) or len(known) == len(node.parts)
    if whole and all(outcome(part, alpha) == holds for part in known):
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


def deciding(node: Node, alpha: float = ALPHA) -> Deciding | None:
    """The worst of `Every`, the best of `Some`; where being picked decides, widened."""
    if isinstance(node, Reading):
        return None if node.value is None else Deciding(node, alpha)
    known = [part for part in node.parts if outcome(part) != NO_RECORD]
    said = outcome(node, alpha)
    if said == NOT_SUPPORTED if isinstance(node, Every) else said != NOT_SUPPORTED:
        alpha /= max(len(known), 1)
    found = [one for part in known if (one := deciding(part, alpha)) is not None]
    chosen = min if isinstance(node, Every) else max
    return chosen(found, key=lambda one: one.reading.margin(), default=None)


class Claim(NamedTuple):
    """A statement and how records decide it."""

    id: str
    section: str  # of the paper; "beyond" for claims of ours
    statement: str
    rule: str  # what is compared, and how several readings are joined
    paper: str  # what the paper has, in a few words
    experiment: str  # whose records are read
    figure: str  # the picture of that experiment
    read: Callable[[Sequence[Record]], Node]

    def judge(self, records: Sequence[Record]) -> "Verdict":
        """The verdict of these records; those of other experiments do not matter."""
        node = self.read([r for r in records if r.experiment == self.experiment])
        return Verdict(self, outcome(node), tuple(readings(node)), deciding(node))


class Verdict(NamedTuple):
    """A claim, judged."""

    claim: Claim
    outcome: str
    readings: tuple[Reading, ...]
    deciding: Deciding | None

    def absent(self) -> list[str]:
        """Methods that the claim is about and no record has."""
        return [NAMES[r.method] for r in self.readings if not r.folder]


# --- intervals -------------------------------------------------------------------------


def student(values: np.ndarray, grain: float = 0.0) -> Interval | None:
    """The interval of a mean over networks or runs; none without a spread.

    Args:
      values: f64[n].
      grain: the step in which values are counted, 1 / N for a share of N images.
    """
    if len(values) < 2:
        return None
    std = max(float(values.std(ddof=1)), grain / math.sqrt(12))
    # Equal values of different float32 numbers differ by their rounding.
    if std < 1e-7:
        return None
    half = _quantile(ALPHA, len(values) - 1) * std / math.sqrt(len(values))
    mean = float(values.mean())
    return Interval(mean - half, mean + half, len(values) - 1)


def wilson(share: float, num: int) -> Interval:
    """Wilson's score interval of a share of `num` independent draws."""
    z = _quantile(ALPHA, math.inf)
    centre = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2)) / (1 + z**2 / num)
    # It always holds the share; rounding must not say otherwise.
    return Interval(min(centre - half, share), max(centre + half, share))


NO_SPREAD = "no interval: all networks agree to the last digit"
ONE_RUN = (
    "one run: the interval is that of the probes, and does not hold what another run "
    "would change"
)
ONE_RUN_EXACT = "one run, and exact on its images: nothing is known of another run"


def recorded(record: Record, *keys: str, freedom: float = math.inf) -> Interval:
    """An interval that the record holds."""
    ends = record.numbers(*keys)
    if len(ends) != 2 or ends[0] > ends[1]:
        raise _malformed(record, keys, "two rising numbers", ends.tolist())
    return Interval(float(ends[0]), float(ends[1]), freedom)


# --- what records are about ------------------------------------------------------------


def network(described: Mapping[str, Any], paper_width: int = reference.WIDTH) -> str:
    """A network in a few words, with the paper's width where it is another."""
    key, width = described.get("model", "network"), described.get("width")
    names = {"convnet": "ConvNet", "mlp": "MLP", "resnet": "ResNet", "vgg": "VGG"}
    words = names.get(str(key), str(key))
    if width is None:
        return words
    if key != "convnet" or width == paper_width:
        return f"{words}, width {width}"
    return f"{words}, width {width} (paper: {paper_width})"


def configured(record: Record) -> str:
    """The network of `config.json`."""
    name = record.config.get("model")
    group = record.config.get(str(name))
    return network({"model": name, **(group if isinstance(group, Mapping) else {})})


def per_class(number: int) -> str:
    """How large a set is."""
    return f"{number} per class"


def paths_of(record: Record) -> list[str]:
    """The distilled sets that a run looks at, as it names their files."""
    if record.experiment in ("influence", "attributes"):
        found = record.get("artefact")
        path = found.get("path") if isinstance(found, Mapping) else found
        if not isinstance(path, str):
            raise InputError(
                f"{record.folder}/summary.json: artefact names no file; run the experiment "
                "again"
            )
        return [path]
    if record.experiment in ("distill", "coresets"):
        return []
    rows = record.get("sets" if record.experiment == "dynamics" else "rows")
    return [str(row["path"]) for row in rows.values() if row.get("path")]


def _papers(number: float | None, ipc: float) -> float | None:
    """The paper's number, beside sets of the size that it has."""
    return number if ipc == reference.IPC else None


def _absent(methods: Sequence[str], found: Sequence[Node], **fields: Any) -> list[Node]:
    """A reading without a value for each method that none of `found` is about."""
    seen = {reading.method for node in found for reading in readings(node)}
    return [Reading(method, **fields) for method in methods if method not in seen]


def _by_method(rows: Mapping[str, Any], record: Record, key: str) -> list[tuple[str, str]]:
    """Labels and methods, in the order of `METHODS`; sets of other methods last."""
    found = [(label, str(record.get(key, label, "method"))) for label in rows]
    order = {method: number for number, method in enumerate(METHODS)}
    return sorted(found, key=lambda one: order.get(one[1], len(order)))


# --- the readings of each claim --------------------------------------------------------


def _beats_random(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    about: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": True}
    for record in records:
        method, ipc = str(record.config.get("method")), int(record.config.get("ipc") or 0)
        if method not in METHODS or "random" not in record.get("accuracy"):
            continue
        ours, random = (
            record.numbers("accuracy", name, "values") for name in ("distilled", "random")
        )
        _same_number(record, "accuracy", ours, random)
        difference, interval = ours - random, student(ours - random)
        found.append(
            Reading(
                method,
                **about,
                value=float(difference.mean()),
                interval=interval,
                label=record.folder.rpartition("/")[2],
                where=per_class(ipc),
                n=f"{len(difference)} networks",
                paper=_papers(
                    reference.STANDARD[method] - reference.MIXING["random"][0], ipc
                ),
                scale=configured(record),
                note="" if interval else NO_SPREAD,
                folder=record.folder,
            )
        )
    return Every([*_in_order(found), *_absent(METHODS, found, **about)])


def _in_order(found: Sequence[Node]) -> list[Node]:
    order = {method: number for number, method in enumerate(METHODS)}
    return sorted(found, key=lambda node: order.get(readings(node)[0].method, len(order)))


def _same_number(record: Record, key: str, a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise InputError(
            f"{record.folder}/summary.json: {key} has {len(a)} networks of one set and "
            f"{len(b)} of another, which cannot be paired; run the experiment again"
        )


TEST_ROW = "test images"  # of experiments.recognition


def _recognition(
    records: Sequence[Record], methods: Sequence[str], make: Callable[..., Reading]
) -> Node:
    """A reading of each method and architecture."""
    found: list[Node] = [
        make(record, label, method, name)
        for record in records
        for label, method in _by_method(record.get("rows"), record, "rows")
        if method in methods
        for name in record.get("recognition", label)
    ]
    blank: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": True}
    return Every([*_in_order(found), *_absent(methods, found, **blank)])


def _recognised(record: Record, label: str, method: str, name: str) -> dict[str, Any]:
    about = record.get("networks", name)
    paper = reference.RECOGNITION.get(name)
    width = paper.width if paper and paper.width else reference.WIDTH
    epochs = f"{record.get('networks', name, 'epochs')} epochs"
    if paper and paper.epochs and epochs != f"{paper.epochs} epochs":
        epochs += f" (paper: {paper.epochs})"
    ipc = int(record.number("rows", label, "images_per_class"))
    return {
        "method": method,
        "label": label,
        "where": name,
        "scale": f"{network(about, width)}, {epochs}; {per_class(ipc)}",
        "folder": record.folder,
    }


def _shown_and_test(
    record: Record, label: str, name: str
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Accuracies on the set and on test images, and the steps they are counted in."""
    keys = "accuracy", "values"
    ours = record.numbers("recognition", label, name, *keys)
    test = record.numbers("recognition", TEST_ROW, name, *keys)
    _same_number(record, f"recognition.{label}.{name}", ours, test)
    return (
        ours,
        test,
        1 / record.number("rows", label, "num_images"),
        1 / record.number("rows", TEST_ROW, "num_images"),
    )


def _against_test(above: bool) -> Callable[..., Reading]:
    def make(record: Record, label: str, method: str, name: str) -> Reading:
        ours, test, grain, test_grain = _shown_and_test(record, label, name)
        difference = ours - test
        interval = student(difference, math.hypot(grain, test_grain))
        paper = reference.RECOGNITION.get(name)
        apart = None if paper is None else paper.sets[method] - paper.test
        return Reading(
            **_recognised(record, label, method, name),
            unit="points",
            threshold=0.0,
            above=above,
            value=float(difference.mean()),
            interval=interval,
            n=f"{len(difference)} networks",
            paper=_papers(apart, record.number("rows", label, "images_per_class")),
            note="" if interval else NO_SPREAD,
        )

    return make


def _above_chance(record: Record, label: str, method: str, name: str) -> Reading:
    ours, _, grain, _ = _shown_and_test(record, label, name)
    paper = reference.RECOGNITION.get(name)
    shown = None if paper is None else paper.sets[method]
    interval = student(ours, grain)
    return Reading(
        **_recognised(record, label, method, name),
        unit="percent",
        threshold=CHANCES / record.number("dataset", "num_classes"),
        above=True,
        value=float(ours.mean()),
        interval=interval,
        n=f"{len(ours)} networks",
        paper=_papers(shown, record.number("rows", label, "images_per_class")),
        note="" if interval else NO_SPREAD,
    )


def _pixels(records: Sequence[Record]) -> Node:
    about: dict[str, Any] = {"unit": "percent", "threshold": OUTSIDE, "above": True}
    found: list[Node] = []
    for record in records:
        for label, method in _by_method(record.get("rows"), record, "rows"):
            if method not in METHODS:
                continue
            value = record.number("pixels", label, "outside")
            ipc = int(record.number("rows", label, "images_per_class"))
            found.append(
                Reading(
                    method,
                    **about,
                    value=value,
                    interval=Interval(value, value),
                    label=label,
                    n="all pixels",
                    scale=per_class(ipc),
                    note="a count of all values of the set, so there is no spread",
                    folder=record.folder,
                )
            )
    return Every([*_in_order(found), *_absent(METHODS, found, **about)])


def _mixed(record: Record, label: str, method: str, *, lowers: bool) -> list[Reading]:
    """What each number of real images changes, network by network."""
    alone = record.numbers("accuracy", label, "0", "values")
    found = []
    added = sorted(int(n) for n in record.get("accuracy", label) if n != "0")
    for number in added:
        values = record.numbers("accuracy", label, str(number), "values")
        _same_number(record, f"accuracy.{label}", values, alone)
        difference, interval = values - alone, student(values - alone)
        paper = None
        if number in reference.REAL_PER_CLASS and method in reference.MIXING:
            row = reference.MIXING[method]
            paper = row[reference.REAL_PER_CLASS.index(number)] - row[0]
        ipc = int(record.number("rows", label, "images_per_class"))
        found.append(
            Reading(
                method,
                "points",
                0.0,
                above=not lowers,
                value=float(difference.mean()),
                interval=interval,
                label=label,
                where=f"+{number} per class",
                n=f"{len(difference)} networks",
                paper=_papers(paper, ipc),
                scale=f"{network(record.get('rows', label, 'network'))}; {per_class(ipc)}",
                note="" if interval else NO_SPREAD,
                folder=record.folder,
            )
        )
    return found


def _mixing(methods: Sequence[str], *, lowers: bool) -> Callable[[Sequence[Record]], Node]:
    def read(records: Sequence[Record]) -> Node:
        found: list[Node] = []
        for record in records:
            for label, method in _by_method(record.get("rows"), record, "rows"):
                if method in methods:
                    parts = _mixed(record, label, method, lowers=lowers)
                    if parts:
                        found.append((Some if lowers else Every)(parts))
        about: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": not lowers}
        return Every([*_in_order(found), *_absent(methods, found, **about)])

    return read


def _agreement(records: Sequence[Record]) -> Node:
    about: dict[str, Any] = {"unit": "points", "threshold": 0.0, "above": True}
    found: list[Node] = []
    for record in records:
        for label, method in _by_method(record.get("rows"), record, "rows"):
            if method not in METHODS:
                continue
            ipc = int(record.number("rows", label, "images_per_class"))
            paper = reference.AGREEMENT[method]
            base = Reading(
                method,
                **about,
                label=label,
                paper=_papers(paper.early_stopped - paper.subset, ipc),
                scale=(
                    f"{network(record.get('model'))}; {per_class(ipc)}; "
                    f"{record.number('test_images'):,.0f} test images"
                ),
                folder=record.folder,
            )
            found.append(_agreed(record, label, base))
    return Every([*_in_order(found), *_absent(METHODS, found, **about)])


def unmatched(record: Record, *keys: str) -> str | None:
    """Why a set has no agreement at equal accuracy; None where it has."""
    entry = record.get(*keys)
    return str(entry["unmatched"]) if "unmatched" in entry else None


def _agreed(record: Record, label: str, base: Reading) -> Reading:
    at = "agreement", label
    for keys in (at, (*at, "difference")):
        if why := unmatched(record, *keys):
            return base._replace(note=f"no network of equal accuracy: {why}")
    value = record.number(*at, "difference", "value")
    apart = record.number(*at, "early_stopped", "value")
    apart -= record.number(*at, "subset", "value")
    if abs(value - apart) > 1e-4:
        raise InputError(
            f"{record.folder}/summary.json: agreement.{label}.difference is {value:+.3f}, "
            f"but early-stopped less subset-trained is {apart:+.3f}; run it again"
        )
    seeds = int(record.number(*at, "accuracy", "seeds"))
    interval = None
    if None not in record.get(*at, "difference", "interval"):
        freedom = record.number(*at, "difference", "freedom")
        interval = recorded(record, *at, "difference", "interval", freedom=freedom)
    members = [
        record.number(*at, pool, "num_members") for pool in ("early_stopped", "subset")
    ]
    accuracy = record.number(*at, "accuracy", "mean")
    return base._replace(
        value=value,
        interval=interval,
        where=f"at {100 * accuracy:.1f} % accuracy",
        n=f"{seeds} networks",
        note=(
            f"beside {members[0]:.0f} early-stopped and {members[1]:.0f} subset-trained "
            "networks of that accuracy"
        ),
    )


def _on_real(records: Sequence[Record], curve: str) -> list[Record]:
    """Runs in which a network learns real images, and that measured the curve."""
    return [
        record
        for record in records
        if record.get("trained_on") == "real" and curve in record.get("curves")
    ]


def _looked_at(record: Record, methods: Sequence[str]) -> list[tuple[str, str]]:
    """Labels and methods of distilled sets."""
    sets = record.get("sets")
    return [one for one in _by_method(sets, record, "sets") if one[1] in methods]


def iterations(record: Record, curve: str, name: str) -> list[int]:
    """At which a curve was measured."""
    return [int(i) for i in record.numbers("curves", curve, name, "iterations")]


class Point(NamedTuple):
    """A curve at one iteration."""

    values: np.ndarray  # f64[runs]
    error: float  # of the probes, in one run
    num_probes: int


def point(record: Record, curve: str, name: str, iteration: int) -> Point:
    """What was measured of a set at an iteration that was looked at."""
    at = iterations(record, curve, name).index(iteration)
    keys = "curves", curve, name
    rows = record.get(*keys, "values")
    for key in ("values", "standard_error"):
        column = rows if key == "values" else [record.get(*keys, key)]
        if not isinstance(column, list) or any(
            not isinstance(row, list) or len(row) <= at for row in column
        ):
            raise _malformed(record, (*keys, key), "a number for each iteration", column)
    values = [_finite(row[at], (*keys, "values"), record) for row in rows]
    error = record.get(*keys, "standard_error")[at]
    return Point(
        np.array(values),
        0.0 if error is None else _finite(error, (*keys, "standard_error"), record),
        int(record.number(*keys, "num_probes")),
    )


def _over_runs(
    values: np.ndarray, error: float, num_probes: int, grain: float = 0.0
) -> dict[str, Any]:
    """Value, interval, number and caveat of something measured in each run.

    Args:
      values: f64[runs].
      error: in one run, the standard error that the probes leave.
      num_probes: random probes behind it; fewer than two are no estimate of an error.
      grain: see `student`.
    """
    found: dict[str, Any] = {"value": float(values.mean())}
    if len(values) > 1:
        interval = student(values, grain)
        note = "" if interval else NO_SPREAD.replace("networks", "runs")
        return {**found, "interval": interval, "n": f"{len(values)} runs", "note": note}
    if num_probes < 2 or not error:
        return {**found, "n": "1 run", "note": ONE_RUN_EXACT}
    half = _quantile(ALPHA, num_probes - 1) * error
    interval = Interval(found["value"] - half, found["value"] + half, num_probes - 1)
    return {
        **found,
        "interval": interval,
        "n": f"1 run, {num_probes} probes",
        "note": ONE_RUN,
    }


def _ipc(record: Record, label: str) -> int:
    """Images a class of a set that `dynamics` looks at."""
    images = record.number("sets", label, "images")
    return round(images / record.number("dataset", "num_classes"))


def _dynamics(record: Record, label: str, method: str, more: str = "") -> dict[str, Any]:
    described = {**record.get("model"), "model": record.get("model", "name")}
    more = more or per_class(_ipc(record, label))
    return {
        "method": method,
        "label": label,
        "scale": f"{network(described)}; {more}",
        "folder": record.folder,
    }


ACCURACY, TRACE, KERNEL = (
    "accuracy.accuracy",
    "hessian_trace.hessian_trace",
    "ntk.distance",
)


def _last_by(measured: Sequence[int], iteration: int) -> int | None:
    """The last that was looked at by then; none where the run is shorter than that."""
    if not measured or measured[-1] < iteration:
        return None
    return max(i for i in measured if i <= iteration)


def _accuracy_images(record: Record) -> float:
    """The most images of a set that the probe looks at."""
    group = record.config.get("accuracy")
    if not isinstance(group, Mapping) or not isinstance(group.get("images"), int):
        raise InputError(
            f"{record.folder}/config.json does not say how many images the accuracy is of "
            "(accuracy.images); run experiments.dynamics again"
        )
    return float(group["images"])


def _trained_at(name: str) -> float:
    """The paper's accuracy at `RECOGNISED_AT`."""
    return reference.TRAINING[name][reference.TRAINING_ITERATIONS.index(RECOGNISED_AT)]


def _recognised_early(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in _on_real(records, ACCURACY):
        for label, method in _looked_at(record, MATCHING_DYNAMICS):
            at = _last_by(iterations(record, ACCURACY, label), RECOGNISED_AT)
            if at is None:
                continue
            measured = point(record, ACCURACY, label, at)
            images = min(_accuracy_images(record), record.number("sets", label, "images"))
            found.append(
                Reading(
                    **_dynamics(record, label, method),
                    unit="percent",
                    threshold=WHOLLY,
                    above=True,
                    **_over_runs(measured.values, measured.error, 0, 1 / images),
                    where=f"iteration {at}",
                    paper=_papers(_trained_at(method), _ipc(record, label)),
                )
            )
    about: dict[str, Any] = {"unit": "percent", "threshold": WHOLLY, "above": True}
    return Every([*_in_order(found), *_absent(MATCHING_DYNAMICS, found, **about)])


def _test_still_learning(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in _on_real(records, ACCURACY):
        if "test" not in record.get("curves", ACCURACY):
            continue
        measured = iterations(record, ACCURACY, "test")
        at = _last_by(measured, RECOGNISED_AT)
        if at is None or at == measured[-1]:
            continue
        first, last = (point(record, ACCURACY, "test", i) for i in (at, measured[-1]))
        images = min(_accuracy_images(record), record.number("sets", "test", "images"))
        shown = f"{images:,.0f} test images"
        grain = math.sqrt(2) / images
        found.append(
            Reading(
                **_dynamics(record, "test", "test", shown),
                unit="points",
                threshold=TEST_GAIN,
                above=True,
                **_over_runs(last.values - first.values, 0.0, 0, grain),
                where=f"iteration {at} to {measured[-1]}",
                paper=reference.TRAINING["test"][-1] - _trained_at("test"),
            )
        )
    return Every(found)


def _ratios(
    record: Record, label: str, method: str, curve: str, iteration: int
) -> dict[str, Any]:
    """A quantity on a set over that on real training images, at one iteration."""
    ours = point(record, curve, label, iteration)
    real = point(record, curve, "train", iteration)
    about = {**_dynamics(record, label, method), "where": f"iteration {iteration}"}
    unclear = len(real.values) == 1 and real.values[0] < 4 * real.error
    if unclear or (real.values <= 0).any():
        return {**about, "note": "no ratio: that on real images is not clear of zero"}
    ratios = ours.values / real.values
    # To first order in both errors, which are taken as independent.
    relative = math.hypot(ours.error, float(ratios[0]) * real.error) / float(real.values[0])
    probes = min(ours.num_probes, real.num_probes)
    return {**about, **_over_runs(ratios, relative, probes)}


def _read_at(iteration: int, name: str) -> float:
    """The paper's trace at an iteration, between those that were read off."""
    row = reference.TRACE[name]
    return float(np.interp(iteration, reference.TRACE_ITERATIONS, row))


def _trace(
    methods: Sequence[str], *, rises: bool, threshold: float, above: bool
) -> Callable[[Sequence[Record]], Node]:
    def read(records: Sequence[Record]) -> Node:
        found: list[Node] = []
        for record in _on_real(records, TRACE):
            if "train" not in record.get("curves", TRACE):
                continue
            measured = iterations(record, TRACE, "train")
            if rises:
                chosen = [i for i in measured if i in RISE]
            else:
                # A run that was cut short does not say where curvature ends.
                chosen = measured[-1:] if measured[-1] >= 250 else []
            for label, method in _looked_at(record, methods):
                parts = [
                    Reading(
                        **_ratios(record, label, method, TRACE, i),
                        unit="ratio",
                        threshold=threshold,
                        above=above,
                        paper=_papers(
                            _read_at(i, method) / _read_at(i, "real"), _ipc(record, label)
                        ),
                    )
                    for i in chosen
                ]
                if parts:
                    found.append(Some(parts) if rises else Every(parts))
        about: dict[str, Any] = {"unit": "ratio", "threshold": threshold, "above": above}
        return Every([*_in_order(found), *_absent(methods, found, **about)])

    return read


KERNEL_METHODS = (*MATCHING_DYNAMICS, "gm")


def _kernel(records: Sequence[Record]) -> Node:
    about: dict[str, Any] = {"unit": "ratio", "threshold": 1.0, "above": False}
    found: list[Node] = []
    for record in _on_real(records, KERNEL):
        if "train" not in record.get("curves", KERNEL):
            continue
        last = iterations(record, KERNEL, "train")[-1]
        for label, method in _looked_at(record, KERNEL_METHODS):
            ratio = _ratios(record, label, method, KERNEL, last)
            found.append(Reading(**ratio, **about))
    return Every([*_in_order(found), *_absent(KERNEL_METHODS, found, **about)])


def _influenced(record: Record) -> dict[str, Any]:
    """What all readings of a run of `influence` share."""
    images = int(record.number("images"))
    k = int(record.number("dataset", "num_classes"))
    return {
        "method": str(record.get("artefact", "method")),
        "label": folder_name(str(record.get("artefact", "path"))),
        "scale": (
            f"{int(record.number('parameters')):,} parameters; {per_class(images // k)}; "
            f"{int(record.number('test_images')):,} test images"
        ),
        "folder": record.folder,
    }


def folder_name(path: str) -> str:
    """What a set is called: runs/x/distilled.npz and x.npz are x."""
    *folders, file = path.split("/")
    stem = file.removesuffix(".npz")
    return folders[-1] if stem == "distilled" and folders else stem


def _own_class(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        share = record.number("same_class_among_top_nine")
        images = int(record.number("images"))
        found.append(
            Reading(
                **_influenced(record),
                unit="percent",
                threshold=1 / record.number("dataset", "num_classes"),
                above=True,
                value=share,
                interval=wilson(share, images),
                n=f"{images} images",
                note="Wilson's interval, each distilled image and its nine as one draw",
            )
        )
    return Every(_in_order(found))


def _reliability(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        value = record.number("reliability", "value")
        seeds = int(record.number("reliability", "seeds"))
        error = record.get("reliability", "standard_error")
        interval, note = None, "no interval: a jackknife over seeds needs three that differ"
        if error and seeds > 2:
            error = _finite(error, ("reliability", "standard_error"), record)
            half = _quantile(ALPHA, seeds - 1) * error
            interval, note = Interval(value - half, value + half, seeds - 1), ""
        found.append(
            Reading(
                **_influenced(record),
                unit="correlation",
                threshold=0.0,
                above=True,
                value=value,
                interval=interval,
                n=f"{seeds} seeds",
                note=note,
            )
        )
    return Every(_in_order(found))


def _above_noise(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        floor = record.number("mean_noise_floor")
        if floor <= 0:
            raise _malformed(record, ("mean_noise_floor",), "a positive number", floor)
        about = _influenced(record)
        seeds = int(record.number("reliability", "seeds"))
        if "influence_over_noise" in record.summary:
            values = record.numbers("influence_over_noise", "values")
            value, interval = float(values.mean()), student(values)
            note = "" if interval else NO_SPREAD.replace("networks", "seeds")
        else:
            value = record.number("mean_absolute_influence") / floor
            interval, note = None, "no interval: the record does not hold it seed by seed"
        found.append(
            Reading(
                **about,
                unit="ratio",
                threshold=1.0,
                above=True,
                value=value,
                interval=interval,
                n=f"{seeds} seeds",
                note=note,
            )
        )
    return Every(_in_order(found))


ESTIMATES = {"gauss_newton": "influence functions", "ntk": "NTK"}


def _estimates(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        for name in record.get("estimates"):
            keys = "estimates", name, "with_the_same_initialisation", "values"
            values = record.numbers(*keys)
            interval = student(values)
            found.append(
                Reading(
                    **_influenced(record),
                    unit="correlation",
                    threshold=0.0,
                    above=True,
                    value=float(values.mean()),
                    interval=interval,
                    where=ESTIMATES.get(name, name),
                    n=f"{len(values)} seeds",
                    note="" if interval else NO_SPREAD.replace("networks", "seeds"),
                )
            )
    return Every(_in_order(found))


def _attributed(record: Record) -> dict[str, Any]:
    return {
        "method": str(record.get("method")),
        "label": str(record.get("label")),
        "scale": f"{int(record.number('attributes', 'images'))} distilled images",
        "folder": record.folder,
    }


def _enriched(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        found.append(
            Reading(
                **_attributed(record),
                unit="p",
                threshold=ALPHA / 2,
                above=False,
                value=record.number("attributes", "p"),
                p=record.number("attributes", "p"),
                n=f"{int(record.number('attributes', 'tests')):,} tests",
                note=(
                    f"{record.number('attributes', 'significant'):g} findings, "
                    f"{record.number('attributes', 'expected_by_chance'):.3g} expected by "
                    f"chance; {record.number('attributes', 'images_with_finding'):g} of "
                    f"{record.number('attributes', 'images'):g} images have one"
                ),
            )
        )
    return Every(_in_order(found))


def _coherent(records: Sequence[Record]) -> Node:
    found: list[Node] = []
    for record in records:
        found.append(
            Reading(
                **_attributed(record),
                unit="coherence",
                threshold=0.0,
                above=True,
                value=record.number("coherence", "mean"),
                interval=recorded(
                    record,
                    "coherence",
                    "interval",
                    freedom=max(len(record.numbers("coherence", "p_values")) - 1, 1),
                ),
                n=f"{int(record.number('attributes', 'images'))} images",
                note=(
                    f"{record.number('coherence', 'images_above'):g} images are above "
                    "chance each by itself"
                ),
            )
        )
    return Every(_in_order(found))


# --- the claims ------------------------------------------------------------------------

SECTIONS = {
    "standard": "What the sets are worth",
    "3": "Can distilled data stand in for real data?",
    "4.1": "Predictions: like a network that was stopped early?",
    "4.2": "When in training are the sets recognised?",
    "4.3": "How sharp is the loss on them?",
    "5.2": "What does one distilled image act on?",
    "5": "What do the images that it acts on share?",
    "beyond": "Beyond the paper",
}

_EVERY = (
    "Supported if all of these intervals lie on that side; not supported if one lies "
    "wholly on the other, widened for their number."
)

CLAIMS = (
    Claim(
        "beats_random",
        "standard",
        "Networks trained on a distilled set are more accurate than networks trained on as "
        "many random real images.",
        "Test accuracy on the set less that on random real images, network by network, is "
        f"above 0 for each set of the four methods. {_EVERY}",
        "58.9 (BPTT), 53.6 (TM), 46.0 (GM), 42.7 % (DM) against 27.3 %",
        "distill",
        "grid.png",
        _beats_random,
    ),
    Claim(
        "recognised_as_well",
        "3",
        "Networks trained on real images recognise BPTT and TM sets at least as well as "
        "test images.",
        "Accuracy on the set less that on test images, network by network, is at least 0 "
        f"for each set and architecture. {_EVERY}",
        "91 to 100 % of the images, at test accuracies of 68 to 93 %",
        "recognition",
        "recognition.png",
        lambda records: _recognition(records, MATCHING_DYNAMICS, _against_test(True)),
    ),
    Claim(
        "recognised_less",
        "3",
        "Networks trained on real images recognise GM and DM sets less well than test "
        "images.",
        "Accuracy on the set less that on test images, network by network, is at most 0 "
        f"for each set and architecture. {_EVERY}",
        "36 to 71 % of the images, at test accuracies of 68 to 93 %",
        "recognition",
        "recognition.png",
        lambda records: _recognition(records, MATCHING_STATISTICS, _against_test(False)),
    ),
    Claim(
        "recognised_above_chance",
        "3",
        "Networks trained on real images recognise GM and DM sets far above chance.",
        "Accuracy on the set is at least twice one over the number of classes, for each "
        f"set and architecture. {_EVERY}",
        "36 to 71 %, chance 10 %",
        "recognition",
        "recognition.png",
        lambda records: _recognition(records, MATCHING_STATISTICS, _above_chance),
    ),
    Claim(
        "pixels_leave_the_range",
        "3",
        "Pixels of distilled sets leave the range that images have.",
        "At least 1 % of a set's pixel values, back in the range of images, lie below 0 or "
        "above 1 by more than half of one of 255 grey levels, for each of the four "
        "methods. A count, so the number is its own interval.",
        "shown as densities, no number",
        "recognition",
        "pixels.png",
        _pixels,
    ),
    Claim(
        "mixing_lowers",
        "3",
        "Adding real images to a BPTT or TM set lowers the accuracy.",
        "For each set there is a number of added real images with which test accuracy, "
        "network by network, is below that of the set alone. The best of m numbers is "
        "picked, so its interval is widened to level 1 − 0.05 / m; refuted only if "
        "accuracy rises with every number.",
        "down by 8.9 (BPTT) and 7.9 points (TM) with ten per class",
        "mixing",
        "mixing.png",
        _mixing(MATCHING_DYNAMICS, lowers=True),
    ),
    Claim(
        "mixing_random",
        "3",
        "Adding real images to random real images never lowers the accuracy.",
        "With every number of added real images test accuracy, network by network, is at "
        f"least that without. {_EVERY}",
        "up by 1.4, 5.3, 17.9 and 31.2 points",
        "mixing",
        "mixing.png",
        _mixing(("random",), lowers=False),
    ),
    Claim(
        "agrees_with_early_stopped",
        "4.1",
        "A network trained on a distilled set predicts more like a network stopped early "
        "on all real images than like one trained on a subset of them.",
        "At matched accuracy, the share of equal test predictions with early-stopped "
        "networks less that with subset-trained ones is above 0 for each of the four "
        f"methods. {_EVERY}",
        "closer by 3.8 (BPTT), 6 (TM), 7 (GM) and 10.5 points (DM)",
        "agreement",
        "agreement.png",
        _agreement,
    ),
    Claim(
        "recognised_early",
        "4.2",
        "A network that learns real images recognises BPTT and TM sets wholly by iteration "
        "150.",
        "Accuracy on the set, at the last look by iteration 150, is at least 98 % for each "
        f"set. {_EVERY}",
        "100 % of both at iteration 150",
        "dynamics",
        "dynamics.png",
        _recognised_early,
    ),
    Claim(
        "test_still_learning",
        "4.2",
        "At iteration 150 the network has much left to learn about test images.",
        "Accuracy on test images at the end less that at iteration 150 is at least 2 "
        "points.",
        "60 % at iteration 150, 67 % at 298",
        "dynamics",
        "dynamics.png",
        _test_still_learning,
    ),
    Claim(
        "curvature_rises",
        "4.3",
        "Early in training the loss is sharper on BPTT and TM sets than on real images.",
        "For each set there is an iteration from 30 to 120 at which the trace of the "
        "Hessian is above that on real training images. The best of m iterations is "
        "picked, so its interval is widened to level 1 − 0.05 / m; refuted only if it is "
        "below at every one.",
        "twice as sharp around iteration 75",
        "dynamics",
        "dynamics.png",
        _trace(MATCHING_DYNAMICS, rises=True, threshold=1.0, above=True),
    ),
    Claim(
        "curvature_vanishes",
        "4.3",
        "At the end of training the loss is much flatter on BPTT and TM sets than on real "
        "images.",
        "The trace of the Hessian at the last look (iteration 250 or later) is at most "
        f"half of that on real training images, for each set. {_EVERY}",
        "450 (BPTT) and 740 (TM) against 1,790",
        "dynamics",
        "dynamics.png",
        _trace(MATCHING_DYNAMICS, rises=False, threshold=HALF, above=False),
    ),
    Claim(
        "curvature_stays",
        "4.3",
        "At the end of training the loss is not flat on GM and DM sets.",
        "The trace of the Hessian at the last look (iteration 250 or later) is at least "
        f"half of that on real training images, for each set. {_EVERY}",
        "2,060 (GM) and 2,330 (DM) against 1,790",
        "dynamics",
        "dynamics.png",
        _trace(MATCHING_STATISTICS, rises=False, threshold=HALF, above=True),
    ),
    Claim(
        "influence_above_noise",
        "5.2",
        "Leaving out one distilled image changes test losses by more than other initial "
        "weights do.",
        "The mean absolute influence of a seed, over the standard deviation of a test loss "
        f"between seeds, is above 1 for each set. {_EVERY}",
        "one initialisation, so no noise floor",
        "influence",
        "influence.png",
        _above_noise,
    ),
    Claim(
        "influence_reliable",
        "5.2",
        "Which test images a distilled image acts on is not a matter of initial weights.",
        "Rank correlation, over test images, of influences from different seeds is above 0 "
        f"for each set; the interval is the jackknife's over seeds. {_EVERY}",
        "one initialisation",
        "influence",
        "influence.png",
        _reliability,
    ),
    Claim(
        "influence_own_class",
        "5.2",
        "Each distilled image speaks for real images of its own class.",
        "The share of the nine most influenced test images that are of the distilled "
        "image's class is above one over the number of classes, for each set. "
        f"{_EVERY}",
        "shown in pictures, no number",
        "influence",
        "influence.png",
        _own_class,
    ),
    Claim(
        "attributes_enriched",
        "5",
        "The test images that a distilled image acts on share visible attributes.",
        "More attributes tell them from others of their class than chance allows: the "
        "one-sided p of their number "
        f"is at most {ALPHA / 2:g}, what a 95 % interval leaves on its side; refuted at "
        f"{1 - ALPHA / 2:g} or more. For each set.",
        "rates beside base rates, in pictures",
        "attributes",
        "attributes.png",
        _enriched,
    ),
    Claim(
        "attributes_coherent",
        "5",
        "The test images that a distilled image acts on resemble each other more than "
        "others of their class do.",
        "The mean similarity of their features, in a network trained on real images, less "
        f"that of random groups of the class is above 0 for each set. {_EVERY}",
        "shown in pictures, no number",
        "attributes",
        "attributes.png",
        _coherent,
    ),
    Claim(
        "estimates_predict",
        "beyond",
        "Influence functions and the neural tangent kernel tell what leaving an image out "
        "does, without training again.",
        "Rank correlation, over test images, of each estimate with leave-one-out from the "
        f"same initial weights is above 0 for each set. {_EVERY}",
        "not in the paper",
        "influence",
        "influence.png",
        _estimates,
    ),
    Claim(
        "kernel_moves_less",
        "beyond",
        "While a network learns real images, its tangent kernel changes less on BPTT, TM "
        "and GM sets than on the real images.",
        "Distance of the kernel from that at the start, at the last look, over the same on "
        f"real training images is below 1 for each set. {_EVERY}",
        "not in the paper",
        "dynamics",
        "dynamics.png",
        _kernel,
    ),
)


def judge(records: Sequence[Record]) -> list[Verdict]:
    """The verdict on every claim, in the order of the paper, ours last."""
    return [claim.judge(records) for claim in CLAIMS]


# --- numbers in words ------------------------------------------------------------------


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
