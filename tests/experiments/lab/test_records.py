"""Records are checked against their type, when they are written and when they are read."""

import json
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import InputError
from experiments.lab.records import (
    Mismatch,
    ProtocolRecord,
    check,
    checked,
    describe_protocol,
    finished_summary,
    open_sealed,
    paths_of,
    write_summary,
)


class Inner(TypedDict):
    mean: float
    std: float | None
    values: list[float]


class Summary(TypedDict):
    name: str
    runs: int
    rows: dict[str, Inner]
    kind: NotRequired[Literal["a", "b"]]
    more: NotRequired[Any]


def summary(**changes):
    inner = {"mean": 1, "std": None, "values": [1.0, 2]}
    return {"name": "x", "runs": 2, "rows": {"r": inner}, **changes}


def inner(**changes):
    return summary(rows={"r": {"mean": 1.0, "std": 0.1, "values": [], **changes}})


def test_a_value_of_its_type_passes():
    check(Summary, summary())
    check(Summary, summary(kind="a", more=[object()], unknown=3))
    check(list[int] | None, None)
    check(list[bool], [True])


@pytest.mark.parametrize(
    ("value", "path", "wanted"),
    [
        (summary(runs=2.0), "runs", "an integer"),
        (summary(runs=True), "runs", "an integer"),
        (summary(name=None), "name", "a string"),
        (inner(mean="1"), "rows.r.mean", "a finite number"),
        (inner(mean=float("nan")), "rows.r.mean", "a finite number"),
        (inner(mean=True), "rows.r.mean", "a finite number"),
        (inner(std=[]), "rows.r.std", "a finite number"),
        (inner(values=[1.0, None]), "rows.r.values.1", "a finite number"),
        (inner(values={}), "rows.r.values", "a list"),
        (summary(rows=[]), "rows", "an object"),
        (summary(rows={"r": 3}), "rows.r", "an object"),
        (summary(kind="c"), "kind", "one of a, b"),
        ([], "", "an object"),
    ],
)
def test_a_value_of_another_type_is_named(value, path, wanted):
    with pytest.raises(Mismatch) as raised:
        check(Summary, value)
    error = raised.value
    assert (error.path, error.absent) == (path, False)
    assert error.wanted.startswith(wanted)


def test_a_missing_key_is_named():
    with pytest.raises(Mismatch) as raised:
        check(Summary, summary(rows={"r": {"mean": 1.0, "std": None}}))
    assert raised.value.path == "rows.r.values"
    assert raised.value.absent


def test_what_is_written_is_what_is_read(tmp_path):
    written = write_summary(tmp_path, Summary, summary(more=(1, 2)))
    held = open_sealed(tmp_path)
    assert held == written == {**summary(more=[1, 2]), "format": 1}
    assert checked(Summary, held, "folder", "mixing") == written


def test_a_summary_of_another_type_is_a_mistake_of_the_experiment(tmp_path):
    with pytest.raises(TypeError, match=r"Summary.runs is 'two', expected an integer"):
        write_summary(tmp_path, Summary, summary(runs="two"))
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            summary(format=2),
            "is a record of format 2 of experiments.mixing.*reads format 1",
        ),
        (summary(format="x"), "is a record of format 'x'"),
        ({"name": "x"}, "has no runs, so another version of experiments.mixing wrote it"),
        (summary(runs=None), "runs is 'None', expected an integer; the file is damaged"),
    ],
)
def test_a_record_of_another_version_is_refused_by_name(found, message):
    with pytest.raises(InputError, match=f"^runs/x/summary.json.*{message}"):
        checked(Summary, found, "runs/x", "mixing")


def test_a_finished_run_is_known_by_its_summary(tmp_path, capsys):
    assert finished_summary(tmp_path, Summary, "mixing") is None
    assert capsys.readouterr() == ("", "")
    written = write_summary(tmp_path, Summary, summary())
    assert finished_summary(tmp_path, Summary, "mixing") == written


def test_a_summary_that_was_changed_or_is_of_another_run_is_not_taken(tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        told = {"experiment": "experiments.mixing", "config": {"seed": seed}}
        (tmp_path / name / "config.json").write_text(json.dumps(told))
        write_summary(tmp_path / name, Summary, summary())
    ours, theirs = (tmp_path / name / "summary.json" for name in "ab")
    whole = ours.read_text()
    ours.write_text(theirs.read_text())
    assert finished_summary(ours.parent, Summary, "mixing") is None
    assert "another run wrote it); computed again" in capsys.readouterr().err
    assert '"runs": 2' in whole
    ours.write_text(whole.replace('"runs": 2', '"runs": 3'))
    with pytest.raises(ValueError, match="it was changed"):
        open_sealed(ours.parent)
    ours.write_text(whole)
    assert open_sealed(ours.parent)["runs"] == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"runs": NaN}', "\udcff"])
def test_a_summary_that_cannot_be_read_counts_as_missing(tmp_path, capsys, content):
    path = tmp_path / "summary.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert finished_summary(tmp_path, Summary, "mixing") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path} cannot be read (")
    assert line.endswith("); computed again")


def test_a_finished_run_of_another_version_is_refused(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(summary(format=2)))
    with pytest.raises(InputError, match="format 2"):
        finished_summary(tmp_path, Summary, "mixing")
    (tmp_path / "summary.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(InputError, match="has no runs"):
        finished_summary(tmp_path, Summary, "mixing")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_held_in_full(name):
    described = describe_protocol(name, PROTOCOLS[name])
    check(ProtocolRecord, described)
    assert described == {"name": name, **PROTOCOLS[name].to_dict()}
    assert described.keys() == ProtocolRecord.__annotations__.keys()


def test_paths_are_those_of_distilled_sets():
    rows: Any = {
        "a": {"path": "a.npz", "method": "tm"},
        "random": {"path": None, "method": "random"},
    }
    assert paths_of(rows) == ["a.npz"]
