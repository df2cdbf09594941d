"""The gallery: every committed set is listed, explained and loaded by its name."""

import re

import pytest

from distilljax import io, launch
from distilljax.config import FieldError
from distilljax.types import InputError
from experiments.gallery import run as gallery
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
        with pytest.raises(FieldError, match="there is no such set"):
            listed(*argv)


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
