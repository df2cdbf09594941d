"""The gallery: every committed set is listed, explained and loaded by its name."""

import re
import shutil

import pytest

from distilljax import io, launch
from distilljax.config import FieldError
from distilljax.types import InputError
from experiments.gallery import run as gallery
from experiments.lab import sets
from experiments.lab.sets import GALLERY, load_artefacts


def listed(*argv):
    return gallery.run(launch.parse(gallery.Config, argv))


def test_every_folder_is_listed_with_its_numbers(capsys):
    found = listed()
    folders = {path.name for path in GALLERY.iterdir() if path.is_dir()}
    assert {entry.folder.name for entry in found} == folders
    out = capsys.readouterr().out
    for entry in found:
        mean = entry.summary["accuracy"]["distilled"]["mean"]
        assert re.search(rf"{entry.folder.name} .* {100 * mean:.1f} ±", out)


def test_sets_are_chosen_by_data_and_size():
    found = listed("--dataset=cifar10", "--ipc=1")
    assert found
    for entry in found:
        assert (entry.config["dataset"], entry.config["ipc"]) == ("cifar10", 1)
    for argv in (["--dataset=svhn"], ["--ipc=77"]):
        with pytest.raises(FieldError, match="there is no such set; there are"):
            listed(*argv)
    with pytest.raises(FieldError, match=r"ipc=77: .* of --dataset=mnist; there are 1$"):
        listed("--dataset=mnist", "--ipc=77")


def test_every_card_is_that_of_its_folder():
    for entry in gallery.entries():
        text = (entry.folder / "README.md").read_text()
        assert text == gallery.card(entry), (
            f"run experiments.gallery --cards: {entry.folder}"
        )
        assert entry.command in text
        assert (entry.folder / "grid.png").exists()


def test_a_set_is_loaded_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ((label, named),) = load_artefacts("embedded_dm_ipc1").items()
    assert label == "embedded_dm_ipc1"
    file = io.load(GALLERY / "embedded_dm_ipc1" / "distilled.npz")
    assert (named.artefact.distilled.images == file.distilled.images).all()
    with pytest.raises(InputError, match="embedded_xy_ipc1: no such file"):
        load_artefacts("embedded_xy_ipc1")


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_a_damaged_folder_is_named(tmp_path, text):
    place = tmp_path / "set"
    place.mkdir()
    (place / "distilled.npz").touch()
    (place / "config.json").write_text(text)
    (place / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="set: its description is damaged"):
        gallery.entries(tmp_path)


@pytest.fixture
def as_in_a_wheel(tmp_path, monkeypatch):
    """The gallery with the numbers of two sets, and the file of one."""
    for name in ("embedded_bptt_ipc1", "cifar10_tm_ipc10"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "summary.json"):
            shutil.copy(GALLERY / name / file, tmp_path / name)
    shutil.copy(
        GALLERY / "embedded_bptt_ipc1" / "distilled.npz", tmp_path / "embedded_bptt_ipc1"
    )
    monkeypatch.setattr(sets, "GALLERY", tmp_path)
    monkeypatch.setattr(gallery, "GALLERY", tmp_path)


def test_a_wheel_has_the_numbers_of_all_sets_and_the_files_of_some(as_in_a_wheel, capsys):
    assert [entry.here for entry in listed()] == [False, True]
    shown = capsys.readouterr().out
    assert "cifar10_tm_ipc10*" in shown
    assert "* The files of 1 sets are in a clone of the repository alone." in shown
    with pytest.raises(FieldError, match="cards are written in a clone"):
        listed("--cards")
    assert list(load_artefacts("embedded_bptt_ipc1")) == ["embedded_bptt_ipc1"]
    with pytest.raises(InputError, match="the set cifar10_tm_ipc10 is in a clone of"):
        load_artefacts("cifar10_tm_ipc10")
