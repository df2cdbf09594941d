"""The store of trajectories: what goes in comes out, and what is there is the truth."""

import errno
import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.io import trajectories
from distilljax.io.trajectories import Description
from distilljax.types import InputError

EXPERTS, EPOCHS, PARAMS = 5, 3, 7
DESCRIPTION = Description(
    num_experts=EXPERTS,
    num_epochs=EPOCHS,
    num_params=PARAMS,
    dataset={"name": "stripes", "source": "npz", "fingerprint": "ab" * 32},
    preprocess={"kind": "normalise", "sha256": "cd" * 32, "probe": [1.0, -2.0]},
    held_out=50,
    split_seed=0,
    model={"name": "convnet", "config": {"width": 32, "depth": 3}},
    recipe={"lr": 0.01, "augment": ""},
    seed=0,
)
RNG = np.random.default_rng(0)
FULL = RNG.normal(size=(EXPERTS, EPOCHS + 1, PARAMS)).astype(np.float32)
# Half the spacing of numbers, relative; and the smallest normal one.
ROUNDING = {"float32": (0, 0), "float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 0)}


def fill(store, full=FULL, experts=range(EXPERTS)):
    for expert in experts:
        for epoch in range(EPOCHS + 1):
            store.write(expert, epoch, full[expert : expert + 1, epoch])
    return store


@pytest.fixture
def store(tmp_path):
    return fill(trajectories.create(tmp_path / "experts", DESCRIPTION))


def message(call, *args, **kwargs):
    """Of an InputError: one line."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_what_is_written_is_read(tmp_path, dtype):
    full = FULL.copy()
    full[0, 0, :3] = 0.0, 1e-5, -3.14159
    fill(trajectories.create(tmp_path, DESCRIPTION, dtype), full)
    store = trajectories.open(tmp_path)
    assert store.dtype == dtype
    assert Description(*store.description) == DESCRIPTION
    read = store.read(EXPERTS)
    assert read.params.dtype == jnp.dtype(dtype)
    assert read.params.shape == full.shape
    assert read.first_epoch == 0
    assert read.first_epoch.dtype == jnp.int32
    relative, absolute = ROUNDING[dtype]
    error = np.abs(np.asarray(read.params, np.float64) - full)
    assert (error <= np.maximum(relative * np.abs(full), absolute)).all()
    assert dtype == "float32" or error.max() > 0


@pytest.mark.parametrize("dtype", ROUNDING)
def test_a_part_is_that_part_of_the_whole(tmp_path, dtype):
    store = fill(trajectories.create(tmp_path, DESCRIPTION, dtype))
    whole = np.asarray(store.read(EXPERTS).params)
    for experts, rows in ((2, slice(0, 2)), (slice(1, 5, 2), slice(1, 5, 2))):
        for first, last in ((0, 0), (1, 2), (EPOCHS, EPOCHS)):
            part = store.read(experts, first, last)
            assert part.first_epoch == first
            np.testing.assert_array_equal(part.params, whole[rows, first : last + 1])


def test_several_experts_are_written_at_once(tmp_path, store):
    other = trajectories.create(tmp_path / "other", DESCRIPTION)
    for first, last in ((0, 2), (2, 5)):
        for epoch in range(EPOCHS + 1):
            other.write(first, epoch, jnp.asarray(FULL[first:last, epoch]))
    ours, theirs = ((s.path / trajectories.DATA).read_bytes() for s in (other, store))
    assert ours == theirs


def test_numpy_alone_can_read_it(store):
    np.testing.assert_array_equal(np.load(store.path / trajectories.DATA), FULL)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_the_size_is_known_beforehand(tmp_path, dtype):
    store = trajectories.create(tmp_path, DESCRIPTION, dtype)
    size = trajectories.size_estimate(EXPERTS, EPOCHS, PARAMS, dtype)
    assert size == EXPERTS * (EPOCHS + 1) * PARAMS * (4 if dtype == "float32" else 2)
    assert 0 < (store.path / trajectories.DATA).stat().st_size - size <= 256  # the header


def test_only_complete_experts_are_read(tmp_path):
    store = trajectories.create(tmp_path, DESCRIPTION)
    fill(store, experts=(1, 3))
    store.write(0, 0, FULL[:1, 0])
    for seen in (store, trajectories.open(tmp_path)):
        assert seen.rows_done.tolist() == [1, 4, 0, 4, 0]
        assert seen.complete.tolist() == [1, 3]
        np.testing.assert_array_equal(seen.read(2).params, FULL[[1, 3]])
        np.testing.assert_array_equal(seen.read(slice(1, 4, 2)).params, FULL[[1, 3]])
        assert "3 experts are wanted, and 2 of 5 are complete" in message(seen.read, 3)
        assert "expert 2 is not complete, 2 of 5 are" in message(seen.read, slice(1, 4))


@pytest.mark.parametrize(
    ("epochs", "shown"), [((0, 4), "0..4"), ((-1, 2), "-1..2"), ((3, 2), "3..2")]
)
def test_epochs_that_are_not_there_are_refused(store, epochs, shown):
    said = message(store.read, 1, *epochs)
    assert f"epochs {shown} are wanted, and its experts have 0..3" in said
    assert "train longer experts" in said


@pytest.mark.parametrize("experts", [0, -1, slice(5, 9)])
def test_no_expert_at_all_is_refused(store, experts):
    assert "complete" in message(store.read, experts)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("nth", range(8))
@pytest.mark.parametrize("again", [False, True])
def test_a_kill_leaves_a_store_that_tells_the_truth(tmp_path, monkeypatch, nth, again):
    """Every durable step of a write is cut in turn; what counts as there is whole."""
    store = trajectories.create(tmp_path, DESCRIPTION)
    fill(store, experts=(0, 1))
    done, epoch = (4, 2) if again else (2, 2)
    if not again:
        store.write(0, 1, FULL[:2, 1])  # takes epochs 2 and 3 back
        assert store.rows_done[:2].tolist() == [2, 2]
    left = nth

    def dying(function):
        def call(*args):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*args)

        return call

    changed = -FULL
    monkeypatch.setattr(os, "fsync", dying(os.fsync))
    monkeypatch.setattr(os, "replace", dying(os.replace))
    try:
        store.write(0, epoch, changed[:2, epoch])
    except Killed:
        finished = False
    else:
        finished = True
    # A write makes rows, then their record, durable; one again takes rows back first.
    assert finished == (nth >= (7 if again else 4))
    found = trajectories.open(tmp_path)
    held = np.load(tmp_path / trajectories.DATA)
    for expert, rows in enumerate(found.rows_done[:2]):
        assert rows in {epoch, epoch + 1, done}
        for row in range(rows):
            new = row == epoch and rows == epoch + 1
            expected = changed if new else FULL
            np.testing.assert_array_equal(held[expert, row], expected[expert, row])


def test_a_gap_between_epochs_is_refused(tmp_path):
    store = trajectories.create(tmp_path, DESCRIPTION)
    store.write(0, 0, FULL[:1, 0])
    for first, epoch in ((0, 2), (1, 1)):
        with pytest.raises(ValueError, match="leaves a gap"):
            store.write(first, epoch, FULL[:1, epoch])


@pytest.mark.parametrize(
    ("first", "epoch", "shape"),
    [(4, 0, (2, 7)), (-1, 0, (1, 7)), (0, 4, (1, 7)), (0, 0, (1, 6)), (0, 0, (7,))],
)
def test_rows_of_another_shape_are_refused(tmp_path, first, epoch, shape):
    store = trajectories.create(tmp_path, DESCRIPTION)
    with pytest.raises(ValueError, match=r"lie outside|params are"):
        store.write(first, epoch, np.zeros(shape))
    assert not store.rows_done.any()


def test_parameters_that_are_not_finite_are_refused(tmp_path):
    store = trajectories.create(tmp_path, DESCRIPTION)
    values = FULL[1:4, 0].copy()
    values[1, 2] = np.nan
    said = message(store.write, 1, 0, values)
    assert "expert 2 at epoch 0 has parameters that are not finite; lower" in said
    assert not store.rows_done.any()


def test_parameters_beyond_float16_are_refused(tmp_path):
    store = trajectories.create(tmp_path, DESCRIPTION, "float16")
    values = FULL[:1, 0].copy()
    values[0, 0] = 7e4
    said = message(store.write, 0, 0, values)
    assert "7e+04, beyond what float16 holds; keep experts as float32 or bfloat16" in said


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EFBIG, "raise the limit"),
    ],
)
def test_a_full_disk_is_one_sentence(store, tmp_path, monkeypatch, number, advice):
    def full(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    said = message(store.write, 0, 3, FULL[:1, 3])
    assert f"cannot be written ({os.strerror(number)}); {advice}" in said
    assert store.rows_done[0] == 3
    said = message(trajectories.create, tmp_path / "new", DESCRIPTION)
    assert f"cannot be kept there ({os.strerror(number)}); {advice}" in said


def test_what_fits_passes_the_check(store):
    store.check({})
    store.check(DESCRIPTION._asdict())
    store.check({"model": {"config": {"width": 32}}, "split_seed": 0})
    tuples = dict(DESCRIPTION.recipe) | {"augment": ""}
    store.check({"recipe": tuples, "dataset": {"fingerprint": "ab" * 32}})


def test_every_mismatch_is_named(store):
    said = message(
        store.check,
        {
            "dataset": {"fingerprint": "ef" * 32},
            "model": {"name": "mlp", "config": {"width": 128, "depth": 3}},
            "preprocess": {"kind": "zca", "sha256": "12" * 32, "probe": [1.0, -2.0]},
            "held_out": 20,
            "split_seed": 0,
        },
    )
    assert str(store.path) in said
    for part in (
        "dataset.fingerprint is abababab... there and efefefef... is wanted",
        "model.name is 'convnet' there and 'mlp' is wanted",
        "model.config.width is 32 there and 128 is wanted",
        "preprocessing is normalise (SHA-256 cdcdcdcd...) there and zca (SHA-256 12121212",
        "held_out is 50 there and 20 is wanted",
        "change these settings, or train experts with them",
    ):
        assert part in said
    assert "depth" not in said
    assert "split_seed" not in said


def test_what_an_older_description_lacks_has_the_value_given(store):
    """And only that: what it states counts."""
    missing = {"model": {"config": {"width": 128, "padding": 1}}}
    store.check({"model": {"config": {"width": 32, "padding": 1}}}, missing)
    said = message(store.check, {"model": {"config": {"padding": 3}}}, missing)
    assert "model.config.padding is 1 there and 3 is wanted" in said
    said = message(store.check, {"model": {"config": {"width": 128}}}, missing)
    assert "model.config.width is 32 there" in said
    assert "padding is None" in message(store.check, {"model": {"config": {"padding": 1}}})


def test_a_preprocessing_is_compared_by_what_it_does(tmp_path):
    """The last bits differ between machines; another fit differs more."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    fitted = data.fit("zca", images)
    described = trajectories.describe_transform(fitted, (8, 8, 1))
    assert described == trajectories.describe_transform(fitted, (8, 8, 1))
    assert described == json.loads(json.dumps(described))
    description = DESCRIPTION._replace(preprocess=described)
    store = trajectories.create(tmp_path, description)

    elsewhere = fitted.replace(whiten=fitted.whiten * (1 + 1e-6))
    close = trajectories.describe_transform(elsewhere, (8, 8, 1))
    assert close["sha256"] != described["sha256"]
    store.check({"preprocess": close})

    for other in (data.fit("zca", images[1:]), data.fit("normalise", images)):
        wanted = trajectories.describe_transform(other, (8, 8, 1))
        assert "preprocessing is zca" in message(store.check, {"preprocess": wanted})


def test_a_second_store_in_one_place_is_refused(store):
    assert "holds experts already" in message(trajectories.create, store.path, DESCRIPTION)
    np.testing.assert_array_equal(store.read(EXPERTS).params, FULL)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    said = message(trajectories.create, tmp_path / "file" / "experts", DESCRIPTION)
    assert "cannot be kept there (Not a directory)" in said


def test_an_unknown_dtype_is_refused(tmp_path):
    said = message(trajectories.create, tmp_path, DESCRIPTION, "float8")
    assert "'float8': choose one of float32, float16, bfloat16" in said


def test_an_absent_directory_is_refused(tmp_path):
    said = message(trajectories.open, tmp_path / "nowhere")
    assert "nowhere: there are no experts" in said
    assert "experiments.train_experts --workdir=" in said


def edit(**changes):
    def damage(path: pathlib.Path):
        file = path / trajectories.DESCRIBED
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


def write(name, text):
    return lambda path: (path / name).write_text(text)


def truncate(path):
    os.truncate(path / trajectories.DATA, 300)


def grow(path):
    with (path / trajectories.DATA).open("ab") as file:
        file.write(b"\0")


DAMAGE = {
    "newer": (
        edit(format=3),
        "format 3 of experts is none that this library reads (1 to 2)",
    ),
    "json": (write(trajectories.DESCRIBED, '{"format": 1, "desc'), "is damaged"),
    "list": (write(trajectories.DESCRIBED, "[]"), "is damaged"),
    "fields": (edit(description={"num_experts": 5}), "is damaged"),
    "dtype": (edit(dtype="complex64"), "is damaged"),
    "rows": (edit(rows_done=[4, 4, 4, 4, 5]), "rows_done lies outside 0..4"),
    "short": (edit(rows_done=[4]), "rows_done is of 1 experts"),
    "other": (edit(dtype="bfloat16"), "damaged or truncated: it is float32[5, 4, 7]"),
    "absent": (lambda path: (path / trajectories.DATA).unlink(), "npy is missing"),
    "truncated": (truncate, "truncated: it holds 172 bytes of 560"),
    "longer": (grow, "truncated: it holds 561 bytes of 560"),
    "headless": (write(trajectories.DATA, "no array"), "is damaged or truncated"),
    "empty": (write(trajectories.DATA, ""), "is damaged or truncated"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_store_is_one_sentence(store, what):
    damage, part = DAMAGE[what]
    damage(store.path)
    said = message(trajectories.open, store.path)
    assert str(store.path) in said
    assert part in said
    assert ("upgrade distilljax" if what == "newer" else f"delete {store.path}") in said


@pytest.mark.parametrize("dtype", ROUNDING)
def test_a_flipped_bit_is_refused(tmp_path, dtype):
    fill(trajectories.create(tmp_path, DESCRIPTION, dtype))
    path = tmp_path / trajectories.DATA
    content = bytearray(path.read_bytes())
    size = trajectories.size_estimate(EXPERTS, EPOCHS, PARAMS, dtype)
    row = len(content) - size + 2 * size // EXPERTS
    content[row + 1] ^= 1  # of expert 2 at epoch 0
    path.write_bytes(content)
    found = trajectories.open(tmp_path)
    found.read(2)
    found.read(slice(2, 3), 1)
    said = message(found.read, 3)
    assert "is damaged: the checksum of expert 2 at epoch 0 differs; delete" in said


def test_a_store_of_the_first_format_is_read_without_checksums(store):
    described = store.path / trajectories.DESCRIBED
    held = json.loads(described.read_text())
    held["format"] = 1
    del held["checksums"]
    described.write_text(json.dumps(held))
    found = trajectories.open(store.path)
    np.testing.assert_array_equal(found.read(EXPERTS).params, FULL)
    found.write(0, 3, FULL[:1, 3])
    assert json.loads(described.read_text())["format"] == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rows_done": [10**30] * EXPERTS}, "rows_done is 1000000000"),
        ({"rows_done": ["4"] * EXPERTS}, "rows_done is 4"),
        ({"rows_done": None}, "not iterable"),
        ({"checksums": [[1]]}, "checksums are"),
        ({"checksums": "x"}, "checksums are"),
        ({"format": -1}, "format -1 of experts is none that this library reads"),
        ({"format": "2"}, "format '2' of experts is none"),
        ({"format": None}, "format None of experts is none"),
    ],
)
def test_values_of_another_type_are_refused(store, change, why):
    described = store.path / trajectories.DESCRIBED
    described.write_text(json.dumps({**json.loads(described.read_text()), **change}))
    assert why in message(trajectories.open, store.path)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "", "NaN", "\ud800"])
def test_what_is_no_json_object_is_refused(store, text):
    described = store.path / trajectories.DESCRIBED
    described.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "is damaged" in message(trajectories.open, store.path)


def test_a_description_without_its_kind_is_another(store):
    described = store.path / "experts.json"
    held = json.loads(described.read_text())
    for preprocess in ({"sha256": 5}, {"kind": "none", "probe": ["x"]}, {"probe": None}):
        held["description"]["preprocess"] = preprocess
        described.write_text(json.dumps(held))
        with pytest.raises(InputError, match=r"the experts in .* are others"):
            trajectories.open(store.path).check(
                {"preprocess": {"kind": "none", "sha256": "0" * 64, "probe": [1.0]}}
            )
