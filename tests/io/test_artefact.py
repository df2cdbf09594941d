"""The artefact: the same bits back, or one clear sentence; never a pickle."""

import json
import math
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.io import Artefact, load, save
from distilljax.training.evaluation import PROTOCOLS, EvaluationProtocol
from distilljax.types import DistilledSet, InputError

NUM, CLASSES, SHAPE = 6, 3, (4, 4, 2)


@pytest.fixture(scope="module", params=data.FITTERS)
def transform(request):
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    return data.fit(request.param, images)


def make(transform=None, **changes):
    rng = np.random.default_rng(1)
    distilled = DistilledSet(
        jnp.asarray(rng.normal(size=(NUM, *SHAPE)), jnp.float32).at[0, 0, 0].set(-0.0),
        jnp.asarray(rng.normal(size=(NUM, CLASSES)), jnp.float32),
        jnp.asarray(math.log(0.02), jnp.float32),
    )
    artefact = Artefact(
        distilled,
        transform or data.Normalise(jnp.array([0.4, 0.5]), jnp.array([0.2, 0.3])),
        ("ant", "bée", "猫"),
        {"name": "embedded", "source": "embedded", "fingerprint": "6f9b"},
        "bptt",
        {"ipc": 2, "bptt": {"unroll": 20, "window": None}, "lr": 0.1 + 0.2},
        EvaluationProtocol(steps=20, lr=None, decay_at=0.5, augment="flip"),
        "0.1.0",
        {"steps": 100, "scores": [0.5, 0.25], "best": None},
    )
    return artefact._replace(**changes)


def bits(tree):
    return [(x.dtype, x.shape, np.asarray(x).tobytes()) for x in jax.tree.leaves(tree)]


def assert_same(ours, theirs):
    assert type(ours.transform) is type(theirs.transform)
    for name in Artefact._fields:
        if name in ("distilled", "transform"):
            assert bits(getattr(ours, name)) == bits(getattr(theirs, name))
        else:
            assert getattr(ours, name) == getattr(theirs, name)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.npz"


@pytest.mark.parametrize("as_text", [True, False])
def test_round_trip_bit_for_bit(path, transform, as_text):
    saved = make(transform)
    save(str(path) if as_text else path, saved)
    back = load(str(path) if as_text else path)
    assert_same(back, saved)
    raw = np.random.default_rng(2).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    assert bits(back.transform(raw)) == bits(saved.transform(raw))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_comes_back(path, name):
    save(path, make(protocol=PROTOCOLS[name]))
    assert load(path).protocol == PROTOCOLS[name]


def test_what_was_read_can_be_saved_again(path):
    save(path, make())
    again = path.with_name("again.npz")
    save(again, load(path))
    assert_same(load(again), make())


@pytest.mark.parametrize("name", ["set", "set.v2", "set.NPZ"])
def test_any_file_name_will_do(tmp_path, name):
    save(tmp_path / name, make())
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert_same(load(tmp_path / name), make())


def test_an_existing_file_is_replaced(path):
    save(path, make(method="dm"))
    save(path, make(method="bptt"))
    assert load(path).method == "bptt"


def test_a_failure_leaves_the_old_file(path, monkeypatch):
    save(path, make())
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save(path, make(notes={"object": object()}))

    def break_off(file, **arrays):
        if isinstance(file, str | pathlib.Path):
            pathlib.Path(file).write_bytes(before[:100])
        else:
            file.write(before[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", break_off)
    with pytest.raises(OSError, match="no space left"):
        save(path, make(method="dm"))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def refused(path):
    """The message of a refused file: one line that names it."""
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_missing_file(path):
    assert refused(path).endswith("no such file")


def test_a_folder(tmp_path):
    refused(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_file(path, share):
    save(path, make())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "truncated" in refused(path)


def test_a_damaged_byte_is_refused_or_harmless(path):
    saved = make()
    save(path, saved)
    whole = path.read_bytes()
    num_refused = 0
    for position in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            back = load(path)
        except InputError:
            num_refused += 1
            refused(path)
        else:
            assert_same(back, saved)
    assert num_refused > len(whole) / 5 / 2


@pytest.mark.parametrize("text", [b"", b"PK", b"hello", b"{}\n" * 100])
def test_a_foreign_file(path, text):
    path.write_bytes(text)
    assert "not a readable distilled set" in refused(path)


def test_a_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    refused(path)


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return pathlib.Path.touch, (self.marker,)


def contents(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("where", ["meta", "images", "log_lr", "transform.mean", "extra"])
def test_a_pickled_array_is_refused_and_not_executed(path, where):
    marker = path.with_name("executed")
    save(path, make())
    np.savez(path, **contents(path) | {where: np.array([Payload(marker)], dtype=object)})
    message = refused(path)
    assert not marker.exists()
    assert "allow_pickle" not in message  # no advice to load it all the same
    with np.load(path, allow_pickle=True) as file:
        assert file[where] is not None
    assert marker.exists()  # so the payload is a live one


def test_a_plain_pickle_is_refused_and_not_executed(path):
    marker = path.with_name("executed")
    path.write_bytes(pickle.dumps(Payload(marker)))
    refused(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["meta", "images", "label_logits", "log_lr"])
def test_a_missing_array_is_named(path, name):
    save(path, make())
    arrays = contents(path)
    del arrays[name]
    np.savez(path, **arrays)
    assert f"it has no {name}" in refused(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("images", np.zeros((NUM + 1, *SHAPE))),
        ("images", np.zeros((NUM, 4, 4))),
        ("images", np.zeros(())),
        ("images", np.array(["a", "b"])),
        ("label_logits", np.zeros((NUM, CLASSES + 1))),
        ("label_logits", np.zeros(NUM)),
        ("log_lr", np.zeros(1)),
        ("transform.mean", np.zeros(3)),
        ("transform.mean", np.full(2, np.nan)),
        ("transform.std", np.zeros(2)),
        ("transform.more", np.zeros(2)),
    ],
)
def test_arrays_that_do_not_fit(path, name, array):
    save(path, make())
    np.savez(path, **contents(path) | {name: array})
    refused(path)


@pytest.mark.parametrize(
    "transform",
    [
        data.Normalise(jnp.full(3, 0.5), jnp.full(3, 0.5)),
        data.ZCA(jnp.zeros(27), jnp.eye(27), jnp.eye(27)),
    ],
    ids=["normalise", "zca"],
)
def test_a_transform_of_other_images(path, transform):
    save(path, make())
    kind, arrays = data.to_arrays(transform)
    held = {k: v for k, v in contents(path).items() if not k.startswith("transform.")}
    meta = json.loads(str(held["meta"])) | {"transform": kind}
    held |= {f"transform.{name}": array for name, array in arrays.items()}
    np.savez(path, **held | {"meta": np.array(json.dumps(meta))})
    refused(path)


@pytest.mark.parametrize("name", DistilledSet._fields)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(path, name, value):
    save(path, make())
    arrays = contents(path)
    arrays[name] = arrays[name].copy()
    arrays[name].flat[-1] = value
    np.savez(path, **arrays)
    assert f"{name} holds NaN or infinite values" in refused(path)


def with_meta(path, **changes):
    """Rewrites the description; None takes a name away."""
    arrays = contents(path)
    meta = json.loads(str(arrays["meta"])) | changes
    meta = {name: value for name, value in meta.items() if value is not None}
    np.savez(path, **arrays | {"meta": np.array(json.dumps(meta))})


def test_a_newer_format(path):
    save(path, make())
    with_meta(path, format=2)
    message = refused(path)
    assert "format 2 is newer" in message
    assert "upgrade distilljax" in message


@pytest.mark.parametrize("name", [*Artefact._fields[2:], "format", "transform"])
def test_a_missing_part_of_the_description(path, name):
    save(path, make())
    with_meta(path, **{name: None})
    assert name in refused(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": ["a", "b"]},
        {"class_names": 3},
        {"transform": "whitened"},
        {"transform": ["zca"]},
        {"transform": "zca"},
        {"format": "new"},
        {"protocol": [1, 2]},
        {"protocol": "study"},
        {"protocol": {"steps": -1}},
        {"protocol": {"stepz": 3}},
        {"protocol": {"augment": "colour"}},
    ],
    ids=str,
)
def test_a_description_that_does_not_fit(path, changes):
    save(path, make())
    with_meta(path, **changes)
    refused(path)


@pytest.mark.parametrize(
    "text", ["", "{", '{"format": 1', "null", "[]", "3", '"a"', "\x00"]
)
def test_a_description_that_is_damaged(path, text):
    save(path, make())
    np.savez(path, **contents(path) | {"meta": np.array(text)})
    assert "description is damaged" in refused(path)


def test_a_description_that_is_no_text(path):
    save(path, make())
    for meta in (np.zeros(3), np.array(["{}", "{}"]), np.array(1.5)):
        np.savez(path, **contents(path) | {"meta": meta})
        refused(path)


def test_what_could_not_be_read_is_not_written(path):
    broken = make().distilled._replace(log_lr=jnp.asarray(jnp.nan))
    with pytest.raises(InputError, match="log_lr"):
        save(path, make(distilled=broken))
    assert not path.exists()
