"""The artefact: the same bits back, or one clear sentence; never a pickle."""

import hashlib
import io
import json
import math
import pathlib
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.disk import archives
from distilljax.io import Artefact, load, save
from distilljax.io.artefact import FORMAT, digest
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


def test_scalars_and_arrays_of_numpy_are_notes_of_numbers(tmp_path):
    notes = {"accuracy": np.float32(0.5), "steps": np.int64(3), "scores": np.ones(2)}
    save(tmp_path / "set.npz", make(notes=notes))
    held = load(tmp_path / "set.npz").notes
    assert held == {"accuracy": 0.5, "steps": 3, "scores": [1.0, 1.0]}


def test_notes_that_json_cannot_hold_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"set \{1\} cannot be stored; give numbers"):
        save(tmp_path / "set.npz", make(notes={"classes": {1}}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "notes", [{"loss": float("nan")}, {"of": {(1, 2): 3}}, {"loss": np.float32("inf")}]
)
def test_notes_that_are_no_json_are_refused(tmp_path, notes):
    with pytest.raises(InputError, match="cannot be stored as JSON"):
        save(tmp_path / "set.npz", make(notes=notes))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "set.npz").mkdir()
    with pytest.raises(InputError, match=r"set\.npz: cannot be written \(Is a directory\)"):
        save(tmp_path / "set.npz", make())
    assert list(tmp_path.iterdir()) == [tmp_path / "set.npz"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder; create it"):
        save(tmp_path / "absent" / "set.npz", make())


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
    with pytest.raises(InputError, match="cannot be stored"):
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
    assert refused(tmp_path).endswith("is a folder; name the file in it")


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


def rewrite(path, arrays):
    """Writes arrays with their right checksum, where the description says one."""
    meta = arrays["meta"]
    try:
        described = json.loads(str(meta))
        described["sha256"] = digest({n: a for n, a in arrays.items() if n != "meta"})
        meta = np.array(json.dumps(described))
    except (ValueError, TypeError):
        pass
    np.savez(path, **arrays | {"meta": meta})


@pytest.mark.parametrize("where", ["meta", "images", "log_lr", "transform.mean"])
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
    rewrite(path, contents(path) | {name: array})
    assert "SHA" not in refused(path)


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
    rewrite(path, held | {"meta": np.array(json.dumps(meta))})
    assert refused(path).endswith("its preprocessing is not one of (4, 4, 2) images")


@pytest.mark.parametrize("name", DistilledSet._fields)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(path, name, value):
    save(path, make())
    arrays = contents(path)
    arrays[name] = arrays[name].copy()
    arrays[name].flat[-1] = value
    rewrite(path, arrays)
    assert f"{name} holds NaN or infinite values" in refused(path)


def with_meta(path, **changes):
    """Rewrites the description; None takes a name away."""
    arrays = contents(path)
    meta = json.loads(str(arrays["meta"])) | changes
    meta = {name: value for name, value in meta.items() if value is not None}
    np.savez(path, **arrays | {"meta": np.array(json.dumps(meta))})


def test_a_newer_format(path):
    save(path, make())
    with_meta(path, format=FORMAT + 1)
    message = refused(path)
    assert f"format {FORMAT + 1} is newer" in message
    assert "upgrade distilljax" in message


@pytest.mark.parametrize("name", [*Artefact._fields[2:-1], "format", "transform"])
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
        {"format": "2"},
        {"format": -1},
        {"format": 0},
        {"format": 1.5},
        {"format": math.nan},
        {"format": True},
        {"class_names": [1, 2, 3]},
        {"sha256": "0"},
        {"notes": 3},
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": "abc"}, "load would refuse this artefact: .*class_names is 'abc'"),
        ({"class_names": (1, 2, 3)}, "load would refuse .*class_names are no texts"),
        ({"method": None}, "load would refuse this artefact: .*method is None"),
        ({"notes": None}, "load would refuse this artefact: .*notes is None"),
        ({"dataset": None}, "load would refuse this artefact: .*dataset is None"),
        ({"version": None}, "load would refuse this artefact: .*version is None"),
        ({"protocol": "study"}, "^protocol is a str; give an EvaluationProtocol"),
        ({"transform": lambda images: images}, "function cannot be stored"),
        ({"targets": [[1.0]]}, r"targets \(1, 1\) and label logits"),
        ({"distilled": None}, "is a NoneType; give a DistilledSet"),
    ],
)
def test_what_load_would_refuse_is_not_written(path, changes, message):
    with pytest.raises(InputError, match=message):
        save(path, make(**changes))
    assert not path.exists()


def test_integers_are_not_written_and_half_precision_comes_back(path):
    images = np.ones((NUM, *SHAPE), np.uint8)
    with pytest.raises(InputError, match="has images of uint8"):
        save(path, make(distilled=make().distilled._replace(images=images)))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make().distilled)
    save(path, make(distilled=half))
    np.testing.assert_array_equal(
        load(path).distilled.images, half.images.astype(jnp.float32)
    )


@pytest.mark.parametrize("given", [None, 3, b"set.npz", ["set.npz"], "a\0b"])
def test_what_is_no_path_is_refused(given):
    for call in (load, lambda path: save(path, make())):
        with pytest.raises(InputError, match=r"^path=.*: give the path of a file, a str"):
            call(given)
    with pytest.raises(InputError, match=r"^name=.*: give the name or the path of a data"):
        data.load(given)


def test_what_is_no_artefact_is_not_written(path):
    with pytest.raises(InputError, match=r"^artefact is a DistilledSet; give an Artefact"):
        save(path, make().distilled)
    with pytest.raises(InputError, match="no name of a file"):
        save("", make())


def test_the_checksum_is_that_of_the_arrays(path):
    save(path, make())
    arrays = contents(path)
    meta = json.loads(str(arrays.pop("meta")))
    expected = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        shape = "[" + ", ".join(map(str, array.shape)) + "]"
        expected.update(f"{name} <f4 {shape}\n".encode() + array.tobytes(order="C"))
    assert meta["sha256"] == expected.hexdigest()


@pytest.mark.parametrize("name", ["images", "label_logits", "log_lr", "transform.std"])
def test_a_changed_value_is_noticed(path, name):
    save(path, make())
    arrays = contents(path)
    arrays[name] = np.nextafter(arrays[name], np.float32(np.inf))
    np.savez(path, **arrays)
    assert "SHA-256" in refused(path)


def in_format_1(path, saved):
    """As distilljax wrote it first: both matrices whole, no checksum, no new fields."""
    save(path, saved)
    arrays = contents(path)
    meta = json.loads(str(arrays["meta"])) | {"format": 1}
    del meta["sha256"]
    old = ("steps", "epochs", "batch", "lr", "momentum", "weight_decay", "decay_at")
    meta["protocol"] = {name: meta["protocol"][name] for name in (*old, "augment")}
    arrays["meta"] = np.array(json.dumps(meta))
    if "transform.whiten" in arrays:
        for name in ("whiten", "unwhiten"):
            arrays[f"transform.{name}"] = np.asarray(getattr(saved.transform, name))
    np.savez(path, **arrays)


def test_the_checksum_may_lack_in_format_1_alone(path):
    save(path, make())
    arrays = contents(path)
    meta = json.loads(str(arrays["meta"]))
    del meta["sha256"]
    np.savez(path, **arrays | {"meta": np.array(json.dumps(meta))})
    assert "description is damaged" in refused(path)


def test_pixels_are_those_of_a_picture():
    made = make()
    assert made.pixels.shape == made.distilled.images.shape
    assert 0 <= made.pixels.min() <= made.pixels.max() <= 1


def test_format_1_is_read(path, transform):
    saved = make(transform)
    in_format_1(path, saved)
    assert_same(load(path), saved)
    assert load(path).targets is None


@pytest.mark.parametrize(
    "array",
    [
        np.full((NUM, *SHAPE), "a"),
        np.zeros((NUM, *SHAPE), "datetime64[s]"),
        np.zeros((NUM, *SHAPE), np.complex64),
        np.zeros((NUM, *SHAPE), np.int64),
        np.zeros((NUM, *SHAPE), bool),
        np.zeros((NUM, *SHAPE), [("a", "f4")]),
    ],
    ids=lambda a: str(a.dtype),
)
@pytest.mark.parametrize("format", [1, 2])
def test_only_real_floats_are_numbers(path, array, format):
    (save if format == 2 else in_format_1)(path, make())
    arrays = contents(path) | {"images": array}
    (rewrite if format == 2 else lambda path, a: np.savez(path, **a))(path, arrays)
    assert "images holds" in refused(path)


def test_only_what_is_needed_is_read(path, monkeypatch):
    """A further member, even a pickle, is not touched."""
    save(path, make())
    marker = path.with_name("executed")
    extra = np.array([Payload(marker)], dtype=object)
    np.savez(path, **contents(path) | {"extra": extra})
    read = []
    members = archives.members

    def remember(archive, names, *rest):
        names = list(names)
        read.extend(names)
        return members(archive, names, *rest)

    monkeypatch.setattr(archives, "members", remember)
    assert_same(load(path), make())
    assert "extra.npy" not in read
    assert not marker.exists()


def test_an_archive_that_unfolds_too_far_is_refused_unread(path, monkeypatch):
    save(path, make())
    monkeypatch.setattr(archives, "LIMIT", 1000)
    monkeypatch.setattr(archives.members, "__defaults__", (1000,))
    monkeypatch.setattr(archives.npz_arrays, "__defaults__", (1000,))
    assert "at most 1000 are read" in refused(path)


def test_an_array_that_claims_more_than_it_holds(path):
    """A header of 4 TB on a few bytes: refused by its size, nothing is allocated."""
    save(path, make())
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (1_000_000, 1_000_000)}
    np.lib.format.write_array_header_1_0(header, shape)
    arrays = contents(path)
    del arrays["images"]
    np.savez(path, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images.npy", header.getvalue() + b"1234")
    assert "images has 4 bytes" in refused(path)


def test_targets_come_back(path):
    targets = jnp.asarray(np.random.default_rng(3).normal(size=(NUM, CLASSES)), jnp.float32)
    save(path, make(targets=targets))
    back = load(path)
    np.testing.assert_array_equal(back.targets, targets)
    save(path, back)
    assert_same(load(path)._replace(targets=None), make())


@pytest.mark.parametrize(
    "targets", [np.zeros((NUM, 1)), np.full((NUM, CLASSES), np.nan)], ids=["shape", "nan"]
)
def test_targets_that_do_not_fit_are_not_written(path, targets):
    with pytest.raises(InputError, match="targets"):
        save(path, make(targets=jnp.asarray(targets, jnp.float32)))
    assert not path.exists()


SIDE = 16  # pixels; d = 768


@pytest.fixture(scope="module")
def large():
    """(training images, a ZCA of 16 x 16 x 3 as it was fitted before format 2)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (60, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
    images = (coarse + rng.integers(0, 50, coarse.shape)).astype(np.uint8)
    return images, data.fit("zca", images)


def coloured(transform):
    images = np.random.default_rng(1).normal(size=(NUM, SIDE, SIDE, 3))
    distilled = make().distilled._replace(images=jnp.asarray(images, jnp.float32))
    return make(transform, distilled=distilled)


def test_a_zca_is_stored_once(path, large):
    """A triangle of f32 in place of two matrices, and what it computes is the same."""
    images, transform = large
    saved = coloured(transform)
    in_format_1(path, saved)
    before = path.stat().st_size
    save(path, saved)
    assert path.stat().st_size < before / 3.5
    back = load(path)
    assert bits(back.transform(images)) == bits(transform(images))
    assert bits(back.transform) == bits(transform)


def test_a_zca_of_format_1_is_stored_within_rounding(path, large):
    """Fitted before, its matrices were symmetric and inverse to rounding alone.

    Stored as a triangle, images differ by at most 1e-6 of their largest value, and
    pictures by 1e-4 of theirs.
    """
    images, transform = large
    rng = np.random.default_rng(2)

    def shaken(matrix):
        noise = rng.choice([-1, 0, 1], matrix.shape)
        return jnp.asarray(matrix * (1 + noise * 6e-8), jnp.float32)

    old = transform.replace(
        whiten=shaken(transform.whiten), unwhiten=shaken(transform.unwhiten)
    )
    assert (np.asarray(old.whiten) != np.asarray(old.whiten).T).any()
    in_format_1(path, coloured(transform))
    arrays = contents(path)
    np.savez(
        path,
        **arrays | {"transform.whiten": old.whiten, "transform.unwhiten": old.unwhiten},
    )
    first = load(path)
    assert bits(first.transform) == bits(old)
    save(path, first)
    again = load(path).transform
    seen = old(images)
    assert np.abs(again(images) - seen).max() <= 1e-6 * np.abs(seen).max()
    shown = old.inverse(seen)
    assert np.abs(again.inverse(seen) - shown).max() <= 1e-4 * np.abs(shown).max()


@pytest.mark.parametrize("kind", ["zca", "zca_normed", "zca_scaled", "zca_uncentred"])
def test_a_zca_without_its_matrix_is_fitted_again(path, large, kind):
    images, _ = large
    saved = coloured(data.fit(kind, images))
    save(path, saved, matrices=False)
    assert path.stat().st_size < 60_000  # the set itself has 18 kB, a triangle 1.2 MB
    assert "give them as train_images" in refused(path)
    assert_same(load(path, images), saved)
    for other in (images[:-1] // 2, 255 - images, images[:, :8]):
        with pytest.raises(InputError, match=r"set\.npz: train_images: ") as caught:
            load(path, other)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"whiten": jnp.triu(jnp.ones((768, 768)))}, "not symmetric"),
        ({"unwhiten": jnp.eye(768)}, "not the inverse"),
        ({"whiten": jnp.eye(768)[:5]}, "not square"),
    ],
)
def test_matrices_that_cannot_be_stored(path, large, change, message):
    with pytest.raises(InputError, match=message):
        save(path, coloured(large[1].replace(**change)))
    assert not path.exists()
