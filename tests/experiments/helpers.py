"""Distilled sets, records and damage for the tests of experiments."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np

from distilljax import data, io
from distilljax.core import distilled as distilled_set
from distilljax.training.evaluation import EvaluationProtocol
from tests.conftest import striped_images

OWN = {"model": "mlp", "mlp": {"width": 4, "depth": 1}}


def write_stripes(path):
    """Writes a data set of three classes of striped images; returns its path."""
    train, test = striped_images(40), striped_images(20, seed=1)
    np.savez(
        path,
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        class_names=["top", "middle", "bottom"],
    )
    return path


def write(path, source, ipc=1, steps=4, seed=0, **changes):
    """Writes an artefact of random real images, with an inner learning rate of its own."""
    loaded = data.load(str(source))
    transform = data.fit("normalise", loaded.train.images)
    chosen = data.subset(loaded.train, ipc, seed)
    images, labels = transform(jnp.asarray(chosen.images)), jnp.asarray(chosen.labels)
    described = {"name": str(source), "source": loaded.source}
    artefact = io.Artefact(
        distilled_set.create(images, labels, 3, learning_rate=0.05),
        transform,
        loaded.class_names,
        described | {"fingerprint": loaded.fingerprint},
        "none",
        OWN,
        EvaluationProtocol(steps=steps, lr=None),
        "0",
        {},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    io.save(path, artefact._replace(**changes))
    return path


# Ways to damage a file of finished pieces, and whether pieces in it are left whole.
DAMAGE = {
    "truncated": True,
    "emptied": False,
    "flipped": True,
    "swapped": False,
    "deleted": False,
}


def is_said_once(err: str, file: str, how: str) -> bool:
    """Whether standard error says in one line that a file of records is damaged so."""
    said = [line for line in err.splitlines() if line.endswith("again")]
    damaged = "has a damaged record" in "".join(said)
    lacking = "lacks" in "".join(said)
    return (
        len(said) == 1
        and file in said[0]
        and said[0].endswith("; computed again")
        and damaged == (how in ("truncated", "flipped"))
        and lacking == (how != "flipped")
    )


def damage(how: str, path: pathlib.Path, other: pathlib.Path) -> None:
    """Damages the file of a run: one of `DAMAGE`.

    Args:
      how: cut in the middle of a line, emptied, one bit of a number flipped, swapped with
        the file of another run, or deleted.
      path: the file.
      other: that of the other run.
    """
    held = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(held[: held.rfind(b"\n", 0, len(held) // 2) + 6])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "swapped":
        path.write_bytes(other.read_bytes())
    else:
        found = re.search(rb"0\.\d", held)
        assert found is not None
        digit = found.end() - 1
        path.write_bytes(held[:digit] + bytes([held[digit] ^ 1]) + held[digit + 1 :])


def replace_contents(files, contents):
    """Writes a content into each file; None deletes it."""
    for file, content in zip(files, contents, strict=True):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)


def assert_computed_again(told, files):
    """Each of the files was named once on standard error as damaged; nothing else was."""
    lines = [line for line in told.err.splitlines() if line.endswith("; computed again")]
    assert len(lines) == len(files)
    for file in files:
        assert sum(line.startswith(str(file)) for line in lines) == 1
    assert "were trained before" not in told.out


def write_learned(path, source, **changes):
    """Writes a set with learned real-valued labels, and a short protocol to read them."""
    squared = EvaluationProtocol(steps=3, lr=0.01, loss="squared_error")
    targets = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    targets += 3 * np.eye(3, dtype=np.float32).repeat(2, axis=0)
    changes = {"targets": targets, "protocol": squared} | changes
    return write(path, source, ipc=2, **changes)
