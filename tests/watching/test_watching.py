"""Hooks, event files of TensorBoard and lines of progress."""

import io
import struct
import types

import numpy as np
import pytest

import distilljax
from distilljax import pictures, watching
from distilljax.loop import Progress
from distilljax.methods import dm
from distilljax.models import mlp
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import InputError
from distilljax.watching import events, hooks
from tests.conftest import striped_images

SETTINGS = {
    "method": dm.Config(real_batch=8, augment=""),
    "model": mlp.Config(width=8, depth=1),
    "steps": 8,
    "score_every": 3,
    "score_networks": 2,
    "protocol": EvaluationProtocol(steps=5, lr=0.05),
    "checkpoint_seconds": 0.0,
}


@pytest.fixture(scope="module")
def stripes():
    train, test = striped_images(20), striped_images(20, seed=1)
    return distilljax.dataset(*train, *test)


def told_by(folder):
    """(step, name, value) of each value in the event files of a folder, by step."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            for value in event.summary.value:
                shown = value.image.encoded_image_string or value.simple_value
                found.append((event.step, value.tag, shown))
    return sorted(found, key=lambda row: row[0])


@pytest.fixture(scope="module")
def whole(stripes):
    """An undisturbed run, what a hook was told, and the sets that were scored."""
    told, seen = [], {}

    def keep(progress):
        if progress.score is not None:
            seen[progress.step] = progress.distilled

    made = distilljax.distil(
        stripes, **SETTINGS, hook=lambda *given: told.append(given), on_progress=keep
    )
    return made, told, seen


def test_a_hook_is_told_of_every_step_once_and_sees_the_scored_sets(whole):
    made, told, seen = whole
    assert [{"step": step, **metrics} for step, metrics, _ in told] == made.history
    pictures = {step: images for step, _, images in told if images is not None}
    assert list(pictures) == [3, 6, 8] == [r["step"] for r in made.history if "score" in r]
    inverse = made.artefact.transform.inverse
    for step, images in pictures.items():
        expected = np.clip(np.asarray(inverse(seen[step].images)), 0, 1)
        np.testing.assert_array_equal(images, expected)


def test_a_hook_that_fails_ends_the_run_where_it_can_go_on(stripes, whole, tmp_path):
    told = []

    def fails(step, metrics, images):
        if step == 4 and not told:
            raise RuntimeError("no network\nand more")

    board = tmp_path / "board"
    pytest.importorskip("tensorboardX")

    def both(step, metrics, images):
        writer(step, metrics, images)
        fails(step, metrics, images)

    writer = watching.TensorBoard(board, num_classes=3)
    wanted = (
        r"the hook failed at outer step 4 \(RuntimeError: no network\); the run is kept"
    )
    with pytest.raises(InputError, match=wanted) as caught:
        distilljax.distil(stripes, **SETTINGS, checkpoints=tmp_path / "run", hook=both)
    assert isinstance(caught.value.__cause__, RuntimeError)
    told.append("mended")
    writer.close()
    writer = watching.TensorBoard(board, num_classes=3)
    made = distilljax.distil(stripes, **SETTINGS, checkpoints=tmp_path / "run", hook=both)
    np.testing.assert_array_equal(made.distilled.images, whole[0].distilled.images)
    writer.close()


def test_event_files_hold_every_point_once_after_a_run_that_was_killed(tmp_path):
    pytest.importorskip("tensorboardX")
    board = tmp_path / "board"
    (tmp_path / "board").mkdir()
    (board / "events.out.tfevents.of.another").write_bytes(b"kept")
    picture = np.linspace(0, 1, 3 * 4 * 4).reshape(3, 4, 4, 1)
    first = watching.TensorBoard(board, num_classes=3)
    for step in range(1, 7):
        first(step, {"loss": step / 4}, picture if step % 3 == 0 else None)
    first.flush()
    (written,) = board.glob(f"*{events.MINE}")
    with written.open("ab") as file:  # a record that a kill has torn
        file.write(struct.pack("<Q", 40) + b"torn")
    assert first.last_step() == 6
    again = watching.TensorBoard(board, num_classes=3)
    for step in (5, 6, 7):
        again(step, {"loss": step / 2}, picture if step % 3 == 0 else None)
    again.close()
    first.close()
    assert (board / "events.out.tfevents.of.another").read_bytes() == b"kept"
    (board / "events.out.tfevents.of.another").unlink()
    told = told_by(board)
    losses = [(step, value) for step, name, value in told if name == "loss"]
    assert losses == [(s, s / 4) for s in (1, 2, 3, 4)] + [(s, s / 2) for s in (5, 6, 7)]
    pictures = [(s, v[:4]) for s, name, v in told if name == "distilled"]
    assert pictures == [(3, b"\x89PNG"), (6, b"\x89PNG")]


def test_a_watcher_replays_what_was_before():
    told = []
    watcher = watching.Watcher([lambda *given: told.append(given)], None)
    watcher.replay([{"step": 1, "loss": None}, {"step": 2, "loss": 1.0, "score": 0.5}])
    assert np.isnan(told[0][1]["loss"])
    assert told[1] == (2, {"loss": 1.0, "score": 0.5}, None)


@pytest.mark.parametrize(("num_classes", "per_class"), [(3, 2), (12, 1), (2, 11), (3, 1)])
def test_tile_puts_each_image_where_its_class_and_number_say(num_classes, per_class):
    n = num_classes * per_class
    images = np.arange(n).reshape(n, 1, 1, 1) / 255 * np.ones((1, 2, 3, 1))
    picture = pictures.tile(images, num_classes)
    for i in range(n):
        row, column = divmod(i, per_class)
        if per_class == 1:
            row, column = divmod(i, min(10, num_classes))
        if column < pictures.MOST_COLUMNS:
            cell = picture[3 * row : 3 * row + 2, 4 * column : 4 * column + 3, 0]
            np.testing.assert_array_equal(cell, i)
    assert (picture[2::3] == 0).all()


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("mine", "", "name a function as package.module:function"),
        (":f", "", "name a function as package.module:function"),
        ("nowhere_at_all:f", "", "no module nowhere_at_all is installed"),
        ("mine:g", "", "module mine has no g"),
        ("mine:f", "f = 3", r"a hook is a function of \(step, metrics, images\), not int"),
        ("mine:f", "def f(step): ...", "this one takes other arguments"),
        ("mine:f", "import not_there", "importing mine fails .ModuleNotFoundError"),
        ("mine:f", "def f(:", "importing mine fails .SyntaxError"),
    ],
)
def test_a_hook_that_cannot_be_one(name, text, reason, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(hooks.sys.path))
    monkeypatch.delitem(hooks.sys.modules, "mine", raising=False)
    with pytest.raises(InputError, match=reason):
        watching.find(name)


def test_a_hook_of_the_working_directory_shadows_nothing(tmp_path, monkeypatch):
    (tmp_path / "mine_too.py").write_text("import json\ndef f(step, metrics, images): ...")
    (tmp_path / "tomllib.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(hooks.sys.path))
    assert watching.find("mine_too:f").__module__ == "mine_too"
    with pytest.raises(InputError, match="arguments"):  # that of Python, not of the folder
        watching.find("tomllib:loads")


def progress(step, score=None):
    state = types.SimpleNamespace()
    return Progress(step, 100, 0.5, score, 2.0, (100 - step) / 2, state, lambda s: s)


def test_a_line_in_a_log_file_comes_with_each_score_and_at_the_end():
    stream = io.StringIO()
    show = watching.Line(stream, seconds=1e9)
    for step in (1, 2, 20, 21, 40, 100):
        show(progress(step, {20: 0.5, 21: 0.5, 40: 0.625, 100: 0.625}.get(step)))
    assert stream.getvalue().splitlines() == [
        "  1/100  outer loss 0.5000  2.00 steps/s  50s left",
        " 20/100  outer loss 0.5000  score 0.5000  2.00 steps/s  40s left",
        " 40/100  outer loss 0.5000  score 0.6250  2.00 steps/s  30s left",
        "100/100  outer loss 0.5000  score 0.6250  2.00 steps/s  0s left",
    ]


def test_a_line_on_a_terminal_is_rewritten_in_place():
    stream = io.StringIO()
    stream.isatty = lambda: True
    show = watching.Line(stream)
    show(progress(1))
    show(progress(100, 0.5))
    first, second = stream.getvalue().split("\r")[1:]
    assert "\n" not in first
    assert second.endswith("0s left\n")
    assert len(second) > len(first)


def test_where_there_can_be_no_folder(tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "board").touch()
    with pytest.raises(InputError, match=r"board cannot be made .*; choose another place"):
        watching.TensorBoard(tmp_path / "board")


@pytest.mark.parametrize("hook", [3, "print", lambda step: None])
def test_a_hook_that_is_none_is_refused_before_anything_else(stripes, hook):
    with pytest.raises(InputError, match="a hook is"):
        distilljax.distil(stripes, hook=hook)
