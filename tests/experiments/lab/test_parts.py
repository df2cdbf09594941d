"""Parts of the report that experiments share."""

from experiments.lab.claims import Record
from experiments.lab.parts import configured_networks, whole_config


def record(config, folder="runs/a"):
    return Record("distill", folder, config, "python -m experiments.distill", {})


def test_the_network_of_a_configuration():
    config = {"model": "convnet", "convnet": {"width": 32}, "mlp": {"width": 4}}
    assert configured_networks(record(config)) == [{"model": "convnet", "width": 32}]
    assert configured_networks(record({"model": "own"})) == []
    assert configured_networks(record({})) == []


def test_runs_of_one_configuration_share_their_subject():
    one = whole_config(record({"seed": 0, "ipc": 1}))
    assert one == whole_config(record({"ipc": 1, "seed": 0}, "runs/b"))
    assert one != whole_config(record({"ipc": 2, "seed": 0}))
