"""Sets of other programs, imported by the command."""

import dataclasses
import errno
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from distilljax import data, flags, io, launch
from distilljax.io.foreign import export
from distilljax.models import convnet
from distilljax.training import evaluation
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import Batch, InputError
from experiments.evaluate import run as evaluate
from experiments.import_set import run as import_set
from experiments.lab.keys import fresh_key
from experiments.lab.records import SUMMARY, open_sealed
from tests.io import foreign_sets as given

LABELS = np.repeat(np.arange(given.CLASSES), given.IPC)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small.npz"
    return path, given.load_small(path)


@pytest.fixture(scope="module")
def images(small):
    return given.images_of(small[1], "normalise")


@pytest.fixture
def dc(tmp_path, images):
    path = tmp_path / "set.pt"
    given.write_dc(path, (given.first(images), LABELS))
    return path


def arguments(file, small, place, **changes):
    said = {
        "dataset": str(small[0]),
        "preprocess": "normalise",
        "protocol": "dc",
        "out": str(place),
        "width": 4,
    } | changes
    flags = [f"--{name}={value}" for name, value in said.items() if value is not None]
    return import_set.with_file([str(file), *flags])


def run(*given, **changes):
    return import_set.run(launch.parse(import_set.Config, arguments(*given, **changes)))


def refused(*given, **changes):
    """The one line of a refusal, as the command prints it."""
    with pytest.raises(InputError) as caught:
        run(*given, **changes)
    text = flags.message(caught.value)
    assert "\n" not in text
    return text


def test_the_folder_holds_an_artefact_like_any_other(dc, small, images, tmp_path):
    out = tmp_path / "made"
    summary = run(dc, small, out, method="DC")
    made = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert made == {"distilled.npz", "grid.png", "config.json", SUMMARY}
    assert open_sealed(out) == summary
    artefact = io.load(out / "distilled.npz")
    np.testing.assert_array_equal(artefact.distilled.images, images)
    assert (artefact.method, artefact.protocol) == ("DC", PROTOCOLS["dc"])
    assert summary["images_per_class"] == given.IPC
    assert summary["network"]["width"] == 4
    assert summary["imported"]["file"] == "set.pt"
    described = json.loads((out / "config.json").read_text())
    assert str(tmp_path) not in json.dumps(described["config"]["file"])
    assert described["command"].startswith("python -m experiments.import_set --file=set.pt")
    argv = [f"--artefact={out / 'distilled.npz'}", f"--workdir={tmp_path / 'tested'}"]
    more = ["--protocol=study", "--seeds=2", "--baselines="]
    tested = evaluate.run(launch.parse(evaluate.Config, [*argv, *more]))
    assert list(tested["accuracy"]) == ["distilled"]


def test_a_check_trains_networks_by_the_protocol(tmp_path, small, images, monkeypatch):
    short = dataclasses.replace(PROTOCOLS["rcig_ipc1"], steps=3, warmup=1, augment="")
    monkeypatch.setitem(PROTOCOLS, "rcig_ipc1", short)
    path, targets = tmp_path / "set.npz", np.eye(3, dtype=np.float32)[LABELS] - 1 / 3
    np.savez(path, images=given.first(images), labels=targets)
    summary = run(path, small, tmp_path / "out", protocol="rcig_ipc1", check=2)
    assert summary["labels"] == "targets"
    assert summary["accuracy"]["seeds"] == 2
    held = io.load(tmp_path / "out" / "distilled.npz")
    loaded, model = small[1], convnet.Config.from_dict(held.config["convnet"])
    expected = evaluation.fresh_accuracy(
        jax.random.split(fresh_key(0), 2),
        convnet.make(model, loaded.image_shape, 3),
        Batch(held.distilled.images, jnp.asarray(targets)),
        data.on_device(loaded.test, held.transform, 3),
        short,
    )
    np.testing.assert_allclose(summary["accuracy"]["values"], expected, atol=1e-6)
    assert held.notes["check"]["accuracy"] == summary["accuracy"]
    np.testing.assert_array_equal(held.targets, targets)


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("dataset", "--dataset=: a file does not tell what it was distilled from"),
        ("preprocess", "--preprocess=: a file does not tell what its images went through"),
        ("protocol", "--protocol=: a file does not tell how its authors evaluate it"),
        ("out", "--out=: name a new folder"),
    ],
)
def test_what_is_not_said_is_asked_by_its_flag(dc, small, tmp_path, missing, line):
    assert refused(dc, small, tmp_path / "out", **{missing: None}).startswith(line)
    assert not (tmp_path / "out").exists()


def test_a_file_must_be_named(small, tmp_path):
    assert refused("", small, tmp_path / "out").startswith("--file=: name the file")


def test_labels_implied_by_order_are_asked(small, images, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "set.h5"
    with h5py.File(path, "w") as file:
        file["data"] = given.first(images).reshape(len(images), -1)
    line = refused(path, small, tmp_path / "out")
    assert line.startswith("--labels=none: the file holds none; say in_order")
    summary = run(path, small, tmp_path / "out", labels="in_order")
    assert summary["labels"] == "classes"


def msgpack(images, labels):
    part = {"x_proto": images, "y_proto": labels}
    return serialization.msgpack_serialize({"ema_average": part, "params": {}, "step": 1})


def evil(marker):
    call = b"cposix\nsystem\n" + given.text(f"touch {marker}") + b"\x85R"
    return b"}(" + given.text("data") + call + b"u"


@pytest.mark.parametrize(
    ("change", "answers", "line"),
    [
        (lambda x, y: (x[:5], y[:5]), {}, "5 images, which the 3 classes of small do not"),
        (lambda x, y: (x[:, :, :4], y), {}, "[4, 10, 3] (height, width, channels)"),
        (lambda x, y: (x, y + 1), {}, "labels go from 1 to 3, and small has classes 0..2"),
        (lambda x, y: (x, (y + 1) % 3), {}, "fit the classes of small no better than"),
        (
            lambda x, y: (x, y),
            {"preprocess": "zca_normed"},
            "--preprocess=zca_normed: does",
        ),
        (lambda x, y: (x, y), {"preprocess": "wrong"}, "--preprocess=wrong: unknown"),
        (lambda x, y: (x, y), {"protocol": "best"}, "--protocol=best: unknown"),
        (lambda x, y: (x, y), {"labels": "soft"}, "--labels=soft: unknown"),
        (lambda x, y: (x, y), {"layout": "rcig"}, "not a readable flax checkpoint"),
        (lambda x, y: (x, y), {"dataset": "embedded"}, "(height, width, channels)"),
        (lambda x, y: (x, y), {"protocol": "mtt"}, "--learning_rate=none: protocol mtt"),
        (lambda x, y: (x, y), {"snapshot": 3}, "--snapshot=3: the file has 1"),
    ],
    ids=range(12),
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    tmp_path, small, images, change, answers, line
):
    path = tmp_path / "set.pt"
    x, y = change(given.first(images), LABELS)
    given.write_dc(path, (np.ascontiguousarray(x), np.ascontiguousarray(y)))
    assert line in refused(path, small, tmp_path / "out", **answers)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file(dc, small, tmp_path, share):
    whole = dc.read_bytes()
    dc.write_bytes(whole[: int(share * len(whole))])
    assert refused(dc, small, tmp_path / "out").startswith(str(dc))
    dc.unlink()
    assert refused(dc, small, tmp_path / "out").endswith("no such file")
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_would_run_code(small, tmp_path):
    path, marker = tmp_path / "set.pt", tmp_path / "executed"
    given.write_pt(path, evil(marker), {})
    assert "which could run code" in refused(path, small, tmp_path / "out")
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_with_labels_of_another_data_set(small, images, tmp_path):
    path = tmp_path / "set.msgpack"
    path.write_bytes(msgpack(images, np.zeros((given.NUM, 10), np.float32)))
    line = refused(path, small, tmp_path / "out", protocol="rcig")
    assert "shape [6, 10], expected [6, 3] for the 3 classes of small" in line


def test_a_place_that_is_taken(dc, small, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    line = refused(dc, small, tmp_path / "out")
    assert line.startswith(f"--out={tmp_path / 'out'}: is there already")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_place_of_another_command(dc, small, tmp_path):
    run(dc, small, tmp_path / "out", unchecked=True)
    made = (tmp_path / "out" / "distilled.npz").read_bytes()
    assert "is there already" in refused(dc, small, tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("{")
    assert "is there already" in refused(dc, small, tmp_path / "out", unchecked=True)
    assert (tmp_path / "out" / "distilled.npz").read_bytes() == made


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("where", ["compare_accuracies", "image_grid"])
def test_the_same_command_goes_on(dc, small, tmp_path, monkeypatch, where, error):
    """After an interruption or a full disk, with the set that is there already."""
    short = dataclasses.replace(PROTOCOLS["dc"], epochs=2)
    monkeypatch.setitem(PROTOCOLS, "dc", short)

    def fails(*arguments, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(import_set, where, fails)
        with pytest.raises(type(error) if isinstance(error, OSError) else error):
            run(dc, small, tmp_path / "out", check=1)
    assert io.load(tmp_path / "out" / "distilled.npz").method == "imported"
    assert not (tmp_path / "out" / SUMMARY).exists()
    summary = run(dc, small, tmp_path / "out", check=1)
    assert summary["accuracy"]["seeds"] == 1
    held = io.load(tmp_path / "out" / "distilled.npz")
    assert held.notes["check"]["accuracy"] == summary["accuracy"]


def test_a_place_without_more_than_a_lock_is_free(dc, small, tmp_path):
    """As a disk leaves it that was full before the settings were written."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
    assert run(dc, small, tmp_path / "out")["images"] == given.NUM


def test_a_finished_command_is_shown_again(dc, small, images, tmp_path, monkeypatch):
    summary = run(dc, small, tmp_path / "out")
    made = (tmp_path / "out" / "distilled.npz").read_bytes()
    with monkeypatch.context() as patch:
        patch.delattr(import_set, "_write")
        assert run(dc, small, tmp_path / "out") == summary
    given.write_dc(dc, (given.first(images) * np.float32(1.1), LABELS))
    line = refused(dc, small, tmp_path / "out")
    assert "holds the set of another file of this name; name a new folder" in line
    assert (tmp_path / "out" / "distilled.npz").read_bytes() == made


def test_an_order_that_is_not_that_of_classes_is_told(small, images, tmp_path, capsys):
    labels = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 2, 2]]
    np.savez(tmp_path / "set.npz", images=given.first(images), labels=labels)
    answers = {"labels": "probabilities", "unchecked": True}
    run(tmp_path / "set.npz", small, tmp_path / "out", **answers)
    assert "not as many of each class: the order is the file's" in capsys.readouterr().out


def test_what_was_exported_comes_back(dc, small, images, tmp_path):
    run(dc, small, tmp_path / "made")
    first = io.load(tmp_path / "made" / "distilled.npz")
    export(first, tmp_path / "again.npz", layout="npz")
    run(tmp_path / "again.npz", small, tmp_path / "second")
    second = io.load(tmp_path / "second" / "distilled.npz")
    for before, after in zip(first.distilled, second.distilled, strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_command(dc, small, tmp_path, capsys):
    """One line on stderr and exit code 2; then the same with the answer."""
    good = arguments(dc, small, tmp_path / "out")
    with pytest.raises(SystemExit) as caught:
        import_set.main([one for one in good if not one.startswith("--protocol")])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --protocol=: a file does not tell")
    assert said.count("\n") == 1
    import_set.main([str(dc), *good[1:]])
    assert "preprocessing normalise fits" in capsys.readouterr().out
    assert (tmp_path / "out" / "distilled.npz").exists()
