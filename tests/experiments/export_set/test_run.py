"""Artefacts written for other programs by the command."""

import shutil

import numpy as np
import pytest

from distilljax import data, flags, io, launch
from distilljax.io import foreign
from distilljax.types import InputError
from experiments.export_set import run as export_set
from experiments.lab.sets import GALLERY
from tests.experiments.helpers import write


@pytest.fixture(scope="module")
def artefact(dataset, tmp_path_factory):
    return write(tmp_path_factory.mktemp("sets") / "a" / "distilled.npz", dataset, ipc=2)


def run(**said):
    argv = [f"--{name}={value}" for name, value in said.items()]
    return export_set.run(launch.parse(export_set.Config, argv))


@pytest.mark.parametrize("layout", foreign.EXPORTS)
def test_each_layout_comes_back(artefact, dataset, tmp_path, layout, capsys):
    if layout in ("rat", "png"):
        pytest.importorskip({"rat": "h5py", "png": "PIL"}[layout])
    name = {"dc": "set.pt", "rat": "set.h5", "npz": "set.npz"}.get(layout, "set")
    out = run(artefact=artefact, layout=layout, out=tmp_path / "new" / name)
    assert out == tmp_path / "new" / name
    held = io.load(artefact)
    back = foreign.read(
        out,
        data.load(str(dataset)),
        preprocess="normalise",
        protocol="dc",
        layout=layout,
        labels="in_order" if layout == "rat" else None,
        unchecked=True,
    )
    within = 0.5 / 255 / float(np.min(held.transform.std)) if layout == "png" else 0
    np.testing.assert_allclose(
        back.distilled.images, held.distilled.images, rtol=0, atol=1.01 * within
    )
    classes = np.argmax(back.distilled.label_logits, axis=1)
    np.testing.assert_array_equal(classes, np.repeat(np.arange(3), 2))
    said = capsys.readouterr().out
    assert "normalise" in said
    assert ("clipped to 0..255" in said) == (layout == "png")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"artefact": ""}, "--artefact=: name a distilled set"),
        ({"artefact": "absent.npz"}, "absent.npz: no such file"),
        ({"layout": "zip"}, "--layout=zip: choose one of dc, mtt"),
        ({"layout": ""}, "--layout=: choose one of"),
        ({"out": ""}, "--out=: name a new file or folder"),
    ],
)
def test_what_cannot_be_written(artefact, tmp_path, said, line):
    out = tmp_path / "set.pt"
    with pytest.raises(InputError) as caught:
        run(**{"artefact": artefact, "layout": "dc", "out": out} | said)
    assert line in flags.message(caught.value)
    assert not out.exists()


def test_a_set_of_the_gallery_is_exported_by_its_name(tmp_path):
    run(artefact="embedded_dm_ipc1", layout="npz", out=tmp_path / "set.npz")
    held = io.load(GALLERY / "embedded_dm_ipc1" / "distilled.npz")
    images = np.load(tmp_path / "set.npz")["images"]
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), held.distilled.images)


def test_folders_that_are_class_numbers_are_told(artefact, tmp_path, capsys):
    """One class of the embedded data is called t-shirt/top."""
    pytest.importorskip("PIL")
    run(artefact="embedded_dm_ipc1", layout="png", out=tmp_path / "numbers")
    assert "its folders are class numbers" in capsys.readouterr().out
    folders = sorted(entry.name for entry in (tmp_path / "numbers").iterdir())
    assert folders == list("0123456789")
    run(artefact=artefact, layout="png", out=tmp_path / "names")
    assert "class numbers" not in capsys.readouterr().out


def test_a_folder_stands_for_the_set_in_it(artefact, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    with pytest.raises(InputError, match=r"made is a folder without distilled\.npz"):
        run(artefact=folder, layout="npz", out=tmp_path / "set.npz")
    shutil.copy(artefact, folder / "distilled.npz")
    run(artefact=folder, layout="npz", out=tmp_path / "set.npz")
    images = np.load(tmp_path / "set.npz")["images"]
    found = io.load(artefact).distilled.images
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), found)


def test_a_file_is_not_overwritten(artefact, tmp_path):
    (tmp_path / "set.pt").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        run(artefact=artefact, layout="dc", out=tmp_path / "set.pt")
    assert (tmp_path / "set.pt").read_text() == "mine"


def test_learned_labels_that_a_layout_cannot_hold(dataset, tmp_path):
    targets = np.full((6, 3), 0.2, np.float32)
    made = write(tmp_path / "a.npz", dataset, ipc=2, targets=targets)
    with pytest.raises(InputError, match="labels are learned; choose mtt or npz"):
        run(artefact=made, layout="dc", out=tmp_path / "set.pt")
    assert run(artefact=made, layout="npz", out=tmp_path / "set.npz").exists()
