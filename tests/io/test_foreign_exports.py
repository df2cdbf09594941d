"""Exports: the same set back bit for bit, where the layout holds everything."""

import sys

import numpy as np
import pytest

from distilljax import data
from distilljax.config import FieldError
from distilljax.io import foreign
from distilljax.io.foreign import pickles
from distilljax.types import DistilledSet, InputError

from . import foreign_sets as given
from .foreign_sets import CLASSES, IPC, NUM, first
from .test_foreign import LABELS, rows


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return given.load_small(tmp_path_factory.mktemp("data") / "small.npz")


def artefact(loaded, labels, kind=None):
    images = first(given.images_of(loaded, "normalise"))
    return foreign.from_tensors(
        images,
        labels,
        loaded,
        preprocess="normalise",
        protocol="mtt",
        kind=kind,
        learning_rate=0.03,
    )


@pytest.fixture(scope="module")
def hard(loaded):
    return artefact(loaded, LABELS)


@pytest.fixture(scope="module")
def soft(loaded):
    return artefact(loaded, rows(), "logits")


@pytest.fixture(scope="module")
def real(loaded):
    return artefact(loaded, rows(), "targets")


NAMES = {
    "dc": "set.pt",
    "mtt": "logs",
    "rat": "set.h5",
    "npz": "set.npz",
    "png": "pictures",
}


def back(loaded, path, layout, protocol="mtt"):
    labels = "in_order" if layout == "rat" else None
    rate = 0.03 if layout in ("dc", "rat", "png") else None
    return foreign.read(
        path,
        loaded,
        preprocess="normalise",
        protocol=protocol,
        layout=layout,
        labels=labels,
        learning_rate=rate,
    )


def assert_same(ours, theirs):
    for one, other in zip(ours.distilled[:2], theirs.distilled[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(ours.distilled.log_lr, theirs.distilled.log_lr, rtol=1e-6)
    if theirs.targets is None:
        assert ours.targets is None
    else:
        np.testing.assert_array_equal(ours.targets, theirs.targets)


@pytest.mark.parametrize("layout", ["dc", "mtt", "rat", "npz"])
def test_hard_labels_there_and_back(tmp_path, loaded, hard, layout):
    if layout == "rat":
        pytest.importorskip("h5py")
    foreign.export(hard, tmp_path / NAMES[layout], layout=layout)
    assert [entry.name for entry in tmp_path.iterdir()] == [NAMES[layout]]
    assert_same(back(loaded, tmp_path / NAMES[layout], layout), hard)


@pytest.mark.parametrize("layout", ["mtt", "npz"])
def test_learned_labels_there_and_back(tmp_path, loaded, soft, layout):
    foreign.export(soft, tmp_path / NAMES[layout], layout=layout)
    assert_same(back(loaded, tmp_path / NAMES[layout], layout), soft)


def test_hard_labels_of_mtt_are_class_numbers(tmp_path, hard, soft):
    """As the programs of this layout train on them."""
    for name, held, kind in (("hard", hard, "i"), ("soft", soft, "f")):
        foreign.export(held, tmp_path / name, layout="mtt")
        assert pickles.read(tmp_path / name / "labels_best.pt").dtype.kind == kind


def test_targets_there_and_back(tmp_path, loaded, real):
    foreign.export(real, tmp_path / "set.npz", layout="npz")
    assert_same(back(loaded, tmp_path / "set.npz", "npz"), real)


def test_pictures_are_rounded(tmp_path, loaded, hard):
    """To the nearest of 256 levels, where the pictures are in 0..1."""
    pytest.importorskip("PIL.Image")
    folder = tmp_path / "new" / "pictures"
    foreign.export(hard, folder, layout="png")
    found = back(loaded, folder, "png")
    shown = np.clip(hard.transform.inverse(hard.distilled.images), 0, 1)
    again = found.transform.inverse(found.distilled.images)
    assert 0 < np.abs(again - shown).max() <= 0.5 / 255 + 1e-6
    assert sorted(entry.name for entry in folder.iterdir()) == ["ant", "bee", "cat"]
    with pytest.raises(InputError, match="is there already"):
        foreign.export(hard, folder, layout="png")


def test_grey_pictures_are_of_one_channel(tmp_path, hard):
    images = pytest.importorskip("PIL.Image")
    given = np.linspace(0, 1, 48, dtype=np.float32).reshape(3, 4, 4, 1)
    grey = hard._replace(
        distilled=DistilledSet(given, hard.distilled.label_logits[::IPC], np.float32(0)),
        transform=data.Identity(),
    )
    foreign.export(grey, tmp_path / "pictures", layout="png")
    for name, image in zip(("ant", "bee", "cat"), given, strict=True):
        (path,) = (tmp_path / "pictures" / name).iterdir()
        found = images.open(path)
        assert found.mode == "L"
        np.testing.assert_array_equal(found, np.round(255 * image[..., 0]))


@pytest.mark.parametrize("name", [".ant", "", "a/b", "bee"])
def test_class_names_that_are_no_names_of_folders(tmp_path, loaded, hard, name):
    """The folders are class numbers then, and the set comes back."""
    pytest.importorskip("PIL.Image")
    names = (name, "bee", "cat")
    foreign.export(hard._replace(class_names=names), tmp_path / "pictures", layout="png")
    found = {entry.name for entry in (tmp_path / "pictures").iterdir()}
    assert found == {"0", "1", "2"}
    read = back(loaded._replace(class_names=names), tmp_path / "pictures", "png")
    foreign.export(hard, tmp_path / "named", layout="png")
    assert_same(read, back(loaded, tmp_path / "named", "png"))


@pytest.mark.parametrize(
    ("layout", "kind"),
    [("dc", "soft"), ("dc", "real"), ("rat", "soft"), ("png", "real"), ("mtt", "real")],
)
def test_a_layout_that_cannot_hold_the_labels(tmp_path, layout, kind, request):
    if layout == "rat":
        pytest.importorskip("h5py")
    given_set = request.getfixturevalue(kind)
    with pytest.raises(FieldError, match=f"layout='{layout}'"):
        foreign.export(given_set, tmp_path / "x", layout=layout)
    assert not list(tmp_path.iterdir())


def test_order_is_all_that_rat_has(tmp_path, hard):
    pytest.importorskip("h5py")
    turned = hard.distilled._replace(
        images=hard.distilled.images[::-1], label_logits=hard.distilled.label_logits[::-1]
    )
    with pytest.raises(FieldError, match="not in order of classes"):
        foreign.export(hard._replace(distilled=turned), tmp_path / "x.h5", layout="rat")


def test_an_unknown_layout(tmp_path, hard):
    with pytest.raises(FieldError, match="layout='rcig': choose one of dc, mtt"):
        foreign.export(hard, tmp_path / "x", layout="rcig")


def test_pytorch_reads_a_set_as_dc_wrote_it(tmp_path, hard):
    torch = pytest.importorskip("torch")
    foreign.export(hard, tmp_path / "set.pt", layout="dc")
    held = torch.load(tmp_path / "set.pt", weights_only=True)
    images, labels = held["data"][-1]
    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(labels.numpy(), LABELS)
    np.testing.assert_array_equal(images.numpy(), first(np.asarray(hard.distilled.images)))


def test_to_torch(hard, soft, real):
    torch = pytest.importorskip("torch")
    images, labels, rate = foreign.to_torch(soft)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.float32)
    expected = torch.softmax(torch.from_numpy(rows()), 1)
    torch.testing.assert_close(labels, expected)
    np.testing.assert_array_equal(images.numpy(), first(np.asarray(soft.distilled.images)))
    assert rate == pytest.approx(0.03)
    one_hot = np.eye(CLASSES)[LABELS]
    np.testing.assert_array_equal(foreign.to_torch(hard).labels.numpy(), one_hot)
    np.testing.assert_array_equal(foreign.to_torch(real).labels.numpy(), rows())
    assert images.shape[0] == NUM == CLASSES * IPC


def test_to_torch_without_torch(hard, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="needs the package torch"):
        foreign.to_torch(hard)


def test_without_h5py_a_file_of_rat_is_refused(tmp_path, hard, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="rat: it needs the package h5py; install h5py"):
        foreign.export(hard, tmp_path / "x.h5", layout="rat")
    assert not list(tmp_path.iterdir())
