"""The table of published sets, on made-up files."""

import hashlib

import jax
import numpy as np
import pytest

from distilljax import data, io, launch
from distilljax.analysis.statistics import spread
from distilljax.io import foreign
from distilljax.models import convnet
from distilljax.training import evaluation
from distilljax.training.evaluation import PROTOCOLS, EvaluationProtocol
from distilljax.types import InputError
from experiments.lab.keys import fresh_key
from experiments.lab.records import open_sealed
from experiments.published import run as published
from experiments.published.rows import ROWS, Published
from tests.io import foreign_sets as given

SHORT = EvaluationProtocol(steps=2)
LABELS = np.repeat(np.arange(given.CLASSES), given.IPC)


def row(name, file, dataset, sha256=None, **changes):
    settings = {
        "method": name.upper(),
        "dataset": dataset,
        "ipc": given.IPC,
        "preprocess": "normalise",
        "protocol": "dc",
        "labels": None,
        "accuracy": 28.3,
        "source": "nobody",
    }
    return Published(name, file, sha256, **settings | changes)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder of the files, with rows a and b there and c absent."""
    path = tmp_path / "small.npz"
    loaded = given.load_small(path)
    folder = tmp_path / "files"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        images = given.images_of(loaded, "normalise", seed=seed + 1)
        given.write_dc(folder / f"{name}.pt", (given.first(images), LABELS))
    rows = tuple(row(name, f"{name}.pt", str(path)) for name in "abc")
    monkeypatch.setattr(published, "ROWS", rows)
    monkeypatch.setitem(PROTOCOLS, "dc", SHORT)
    read = foreign.read

    def narrow(*file, **answers):
        return read(*file, **answers, width=4)

    monkeypatch.setattr(foreign, "read", narrow)
    return folder


def run(folder, *more, seeds=2):
    argv = [f"--folder={folder}", f"--workdir={folder.parent / 'run'}", f"--seeds={seeds}"]
    return published.run(launch.parse(published.Config, [*argv, *more]))


def test_the_table(place, capsys):
    summary = run(place)
    out = place.parent / "run"
    assert open_sealed(out) == summary
    assert list(summary["rows"]) == ["a", "b", "c"]
    assert summary["rows"]["c"]["ours"] is None
    assert "sha256" not in summary["rows"]["c"]
    found = summary["rows"]["a"]
    digest = hashlib.sha256((place / "a.pt").read_bytes()).hexdigest()
    assert found["sha256"] == digest
    assert found["network"]["width"] == 4
    made = io.load(out / "sets" / "a" / "distilled.npz")
    loaded = data.load(str(place.parent / "small.npz"))
    expected = evaluation.fresh_accuracy(
        jax.random.split(fresh_key(0), 2),
        convnet.make(convnet.Config(width=4), loaded.image_shape, 3),
        evaluation.as_batch(made.distilled, SHORT),
        data.on_device(loaded.test, made.transform, 3),
        SHORT,
    )
    np.testing.assert_allclose(found["ours"]["values"], expected, atol=1e-6)
    lines = (out / "table.md").read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("| set | data | images per class | protocol | published |")
    assert lines[2].startswith("| A | ")
    assert "| dc | 28.3 | – | " in lines[2]
    assert lines[4].endswith("| 28.3 | – | – | 0 |")
    assert "Published sets" in capsys.readouterr().out


def test_it_goes_on_where_it_was_left(place, capsys):
    first = run(place, "--rows=b", seeds=1)
    assert first["rows"]["a"]["ours"] is None
    assert "a.pt" not in capsys.readouterr().err, "its file is not needed"
    second = run(place, seeds=2)
    said = capsys.readouterr().err
    assert "network 3/3" in said, "one of a's and b's two is kept"
    assert "b.pt" not in said, "the artefact is kept"
    assert second["rows"]["b"]["ours"]["values"][:1] == first["rows"]["b"]["ours"]["values"]
    assert second["rows"]["a"]["ours"]["seeds"] == 2
    third = run(place, seeds=1)
    assert third["rows"] == second["rows"], "what was trained is shown"
    said = capsys.readouterr().err
    assert "compiling" not in said
    assert "reading" not in said


def test_networks_on_a_set_that_is_not_there_are_kept(place, capsys):
    before = run(place)
    (place / "a.pt").rename(place.parent / "a.pt")
    assert run(place)["rows"]["a"]["ours"] is None
    (place.parent / "a.pt").rename(place / "a.pt")
    assert run(place)["rows"] == before["rows"]
    said = capsys.readouterr().err
    assert "lacks" not in said
    assert said.count("compiling") == 2, "once for each set"


def test_a_damaged_artefact_is_made_again(place, capsys):
    before = run(place)
    path = place.parent / "run" / "sets" / "a" / "distilled.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert run(place)["rows"] == before["rows"]
    assert "made again" in capsys.readouterr().err


def test_what_the_file_records_is_shown(place, monkeypatch):
    read = foreign.read

    def with_record(*file, **answers):
        made = read(*file, **answers)
        held = {"recorded_accuracy": {"ConvNet": [0.28, 0.3], "MLP": [0.1]}}
        return made._replace(notes={"imported": {**made.notes["imported"], **held}})

    monkeypatch.setattr(foreign, "read", with_record)
    summary = run(place)
    assert summary["rows"]["a"]["recorded"] == spread([0.28, 0.3])
    assert "| 28.3 | 29.0 ±1.4 |" in (place.parent / "run" / "table.md").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rows=z"], "unknown row 'z'; choose among"),
        (["--rows=c"], "holds none of c.pt"),
        (["--folder=absent"], "name the folder with files such as"),
        (["--folder="], "name the folder with files such as"),
    ],
)
def test_wrong_input_leaves_nothing(place, more, message):
    with pytest.raises(InputError, match=message):
        run(place, *more)
    assert not (place.parent / "run").exists()


def test_another_file_of_the_name(place, monkeypatch):
    rows = (published.ROWS[0]._replace(sha256="0" * 64), *published.ROWS[1:])
    monkeypatch.setattr(published, "ROWS", rows)
    with pytest.raises(InputError, match=r"a\.pt: not the file that is known by this name"):
        run(place)
    assert not (place.parent / "run").exists()


def test_a_truncated_file(place):
    path = place / "b.pt"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"b\.pt"):
        run(place)


def test_rows_can_be_used():
    assert len({one.name for one in ROWS}) == len(ROWS)
    assert len({(one.file, one.protocol) for one in ROWS}) == len(ROWS)
    for one in ROWS:
        assert one.preprocess in data.KINDS
        assert one.protocol in PROTOCOLS
        assert 0 < one.accuracy < 100
        assert one.sha256 is None or len(one.sha256) == 64
