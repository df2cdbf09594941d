"""Checkpoints: the same bits back, or one clear sentence."""

import errno
import os
import shutil
from contextvars import ContextVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax import processes
from distilljax.io import Checkpoints
from distilljax.types import DistilledSet, InputError


def state(seed=0, size=300):
    rng = np.random.default_rng(seed)
    odd = [-0.0, 1e-45, -np.inf, np.nan, 1 / 3]
    distilled = DistilledSet(
        jnp.asarray(rng.normal(size=(2, size, 1, 1)), jnp.float32),
        jnp.asarray([odd, odd[::-1]], jnp.float32),
        jnp.asarray(-1.5, jnp.float32),
    )
    return {
        "distilled": distilled,
        "opt": optax.adam(0.1).init(distilled),
        "key": jax.random.key(seed),
        "keys": jax.random.split(jax.random.key(seed + 1), 3),
        "flags": (jnp.asarray(True), jnp.asarray(seed, jnp.int32)),
        "nothing": (),
    }


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for ours, theirs in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert isinstance(ours, jax.Array)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if jax.dtypes.issubdtype(ours.dtype, jax.dtypes.prng_key):
            ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


@pytest.fixture
def saved(tmp_path):
    """A folder with steps 3 and 7."""
    checkpoints = Checkpoints(tmp_path / "runs" / "checkpoints")
    for step in (3, 7):
        checkpoints.save(step, state(step))
    checkpoints.close()
    return tmp_path / "runs" / "checkpoints"


def test_the_latest_comes_back_bit_for_bit(saved):
    checkpoints = Checkpoints(saved)
    assert checkpoints.latest_step() == 7
    assert_same_bits(checkpoints.restore(7, state()), state(7))
    assert_same_bits(checkpoints.restore(3, state()), state(3))
    drawn = jax.random.normal(checkpoints.restore(7, state())["key"])
    assert drawn == jax.random.normal(jax.random.key(7))
    checkpoints.close()


def test_the_first_of_several_processes_saves_without_the_others(tmp_path, monkeypatch):
    """As `processes.once` has it do; here there is no other that it could wait for."""
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "_ALONE", ContextVar("alone", default=True))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, state(3))
    checkpoints.close()
    monkeypatch.undo()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest_step() == 3
    assert_same_bits(checkpoints.restore(3, state()), state(3))
    checkpoints.close()


def test_only_the_last_few_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    assert checkpoints.latest_step() is None
    for step in (1, 2, 5, 9):
        checkpoints.save(step, {"x": jnp.full(3, step)})
    checkpoints.close()
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_dir()) == [
        "5",
        "9",
    ]
    again = Checkpoints(tmp_path)
    assert again.latest_step() == 9
    np.testing.assert_array_equal(again.restore(5, {"x": jnp.zeros(3, int)})["x"], 5)
    again.close()


def test_what_is_saved_is_the_state_at_that_moment(tmp_path):
    """The writer works on a copy, whatever becomes of the buffers meanwhile."""
    checkpoints = Checkpoints(tmp_path)
    x = jnp.arange(1000.0)
    checkpoints.save(1, {"x": x})
    x = jax.jit(lambda x: x + 1, donate_argnums=0)(x)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    np.testing.assert_array_equal(again.restore(1, {"x": x})["x"], np.arange(1000.0))
    again.close()


def test_what_a_killed_process_left_is_cleared(saved):
    unfinished = saved / "11.orbax-checkpoint-tmp-1234"
    shutil.copytree(saved / "7", unfinished)
    nested = saved / "12.orbax-checkpoint-tmp" / "default"
    nested.mkdir(parents=True)
    checkpoints = Checkpoints(saved)
    assert not unfinished.exists()
    assert not nested.parent.exists()
    assert checkpoints.latest_step() == 7
    assert_same_bits(checkpoints.restore(7, state()), state(7))
    checkpoints.close()


def refused(folder, step, like):
    """The message of a refused restore: one line that names the folder and a remedy."""
    checkpoints = Checkpoints(folder)
    with pytest.raises(InputError) as caught:
        checkpoints.restore(step, like)
    checkpoints.close()
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder / str(step)) in message
    assert "delete that folder" in message
    assert "another workdir" in message
    return message


@pytest.mark.parametrize("what", ["larger", "smaller", "absent", "extra", "renamed"])
def test_another_state_is_refused(saved, what):
    like = state()
    if what in ("larger", "smaller"):
        like = state(size={"larger": 301, "smaller": 299}[what])
    elif what == "absent":
        del like["flags"]
    else:
        like["other"] = like["flags"] if what == "extra" else like.pop("flags")
    refused(saved, 7, like)


def test_a_step_that_is_not_there_is_refused(saved):
    refused(saved, 5, state())


def damage_metadata(folder):
    (folder / "default" / "_METADATA").write_text('{"tree_metadata": {')


def damage_manifest(folder):
    (folder / "default" / "manifest.ocdbt").write_bytes(b"")


def damage_data(folder):
    largest = max((folder / "default").rglob("d/*"), key=lambda file: file.stat().st_size)
    with largest.open("r+b") as file:
        file.seek(largest.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xFF]))


def truncate_data(folder):
    for file in (folder / "default").rglob("d/*"):
        os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage", [damage_metadata, damage_manifest, damage_data, truncate_data]
)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_serves(saved, damage):
    damage(saved / "7")
    refused(saved, 7, state())
    shutil.rmtree(saved / "7")  # as the message says
    checkpoints = Checkpoints(saved)
    assert checkpoints.latest_step() == 3
    assert_same_bits(checkpoints.restore(3, state()), state(3))
    checkpoints.close()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path, identity="one")
    checkpoints.save(1, state())
    checkpoints.close()
    other = Checkpoints(tmp_path, identity="another")
    with pytest.raises(InputError, match="cannot be restored"):
        other.restore(1, state())
    other.close()
    same = Checkpoints(tmp_path, identity="one")
    assert_same_bits(same.restore(1, state(1)), state())
    same.close()


def test_a_full_disk_is_refused_before_a_thread_begins(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    full = shutil._ntuple_diskusage(10**9, 10**9, 0)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: full)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(1, state())
    checkpoints.save(1, state())  # there is room again
    checkpoints.close()
    assert checkpoints.latest_step() == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_fills_meanwhile_is_an_error_of_the_disk(tmp_path, monkeypatch, number):
    checkpoints = Checkpoints(tmp_path)

    def save(*_, **__):
        raise ValueError(f"RESOURCE_EXHAUSTED: write failed: {os.strerror(number)}")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints._manager, "save", save)
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            checkpoints.save(1, state())
    assert caught.value.errno == number
    assert caught.value.filename == str(tmp_path)
    checkpoints.close()
