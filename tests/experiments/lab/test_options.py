"""Options that several experiments share."""

import pytest

from distilljax import platforms
from distilljax.config import FieldError
from distilljax.models import convnet
from experiments.distill import options as distill
from experiments.evaluate import run as evaluate
from experiments.lab import options
from experiments.lab.options import expand, parse_integers, parse_paths
from experiments.mixing import run as mixing
from experiments.train_experts import run as train_experts


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_home_folder(home):
    assert expand("~/a.npz") == f"{home}/a.npz"
    assert expand("a~b") == "a~b"
    assert parse_paths("~/a.npz, b.npz", "artefacts") == [f"{home}/a.npz", "b.npz"]


def test_a_comma_may_be_part_of_a_file_that_is_there(home):
    (home / "a,b").mkdir()
    for name in ("a,b/set.npz", "c.npz"):
        (home / name).touch()
    text = f"{home}/c.npz,{home}/a,b/set.npz,{home}/gone.npz"
    found = [f"{home}/c.npz", f"{home}/a,b/set.npz", f"{home}/gone.npz"]
    assert parse_paths(text, "artefacts") == found


def test_none_and_twice(home):
    assert parse_paths("", "artefacts") == []
    assert parse_paths(" , ", "artefacts") == []
    with pytest.raises(FieldError, match="is named twice"):
        parse_paths("~/a.npz,~/a.npz", "artefacts")


@pytest.mark.parametrize("text", ["", "x", "0", "1,1", "2147483648", "1" * 5000])
def test_other_integers_are_refused(text):
    with pytest.raises(FieldError, match="expected different integers from 1"):
        parse_integers(text, "ipcs", low=1, example="1,10")
    assert parse_integers("10, 2147483647", "ipcs", low=1, example="") == [10, 2**31 - 1]


@pytest.mark.parametrize(
    ("config", "num"),
    [
        (distill.Config(method="bptt"), 3),
        (distill.Config(method="bptt", convnet=convnet.Config(width=128)), 3),
        (distill.Config(method="bptt", model="mlp"), 1),
        (distill.Config(method="tm"), 3),
        (distill.Config(method="kernel"), 3),
        (distill.Config(method="kernel", devices=2), 2),
        (distill.Config(method="gm", devices=1), 1),
        (distill.Config(method="gm", distributed=True), 1),
        (evaluate.Config(), 3),
        (evaluate.Config(distributed=True, devices=2), 2),
        (mixing.Config(), 3),
        (train_experts.Config(), 3),
        (train_experts.Config(experts=2), 2),
        (train_experts.Config(together=1), 1),
        (train_experts.Config(together=1, devices=2), 2),
        (train_experts.Config(distributed=True), 1),
    ],
)
def test_cores_are_devices_where_that_is_faster(config, num, monkeypatch):
    monkeypatch.setattr(platforms, "cpu_threads", lambda: 3)
    assert config.devices_of_cores() == num


def test_no_more_cores_are_devices_than_were_measured_unless_asked(monkeypatch):
    monkeypatch.setattr(platforms, "cpu_threads", lambda: 64)
    assert evaluate.Config().devices_of_cores() == options.MOST_CORES
    assert evaluate.Config(devices=64).devices_of_cores() == 64
