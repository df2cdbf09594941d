"""The part of the report on other architectures."""

import re

import PIL.Image

from experiments.cross_architecture.record import Summary
from experiments.cross_architecture.report import EXPERIMENT
from experiments.lab.claims import Record
from experiments.lab.paper import BEYOND
from experiments.lab.records import checked
from tests.experiments.distill.made import spread
from tests.experiments.made_up import COMMON

RANDOM = "random, 10 per class"


def record(folder="runs/x", names=("own", "resnet18"), path="sets/tm_ipc10/distilled.npz"):
    def cells(value):
        cell = {**spread([value, value + 0.02]), "parameters": 7, "seconds": 1.0}
        return dict.fromkeys(names, cell)

    summary = {
        "accuracy": {"tm_ipc10": cells(0.5), RANDOM: cells(0.3)},
        "rows": {
            "tm_ipc10": {"path": path, "method": "tm", "images_per_class": 10},
            RANDOM: {"path": None, "method": "random", "images_per_class": 10},
        },
        "architectures": {"resnet18": {"model": "resnet", "width": 16}},
        "protocol": "own",
        "seconds": 3.0,
        **COMMON,
    }
    held = checked(Summary, summary, folder, "cross_architecture")
    command = "python -m experiments.cross_architecture"
    return Record("cross_architecture", folder, {"width_scale": 0.25}, command, held)


def test_a_row_for_each_set_and_the_picture(tmp_path):
    ((section, contents),) = EXPERIMENT.contents
    assert section == BEYOND
    (table,) = contents([record()])
    rows = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    cells = [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in rows]
    assert cells == [
        "trained on own resnet18",
        "TM tm_ipc10 51.0 ± 1.4 51.0 ± 1.4",
        f"{RANDOM} 31.0 ± 1.4 31.0 ± 1.4",
    ]
    assert "widths times 0.25" in table
    PIL.Image.new("RGB", (40, 30)).save(tmp_path / "accuracy.png")
    _, figure = contents([record(str(tmp_path))])
    assert "Test accuracy of networks of each architecture trained on each set" in figure


def test_a_run_is_about_each_set_with_each_architecture():
    one = EXPERIMENT.subjects(record())
    assert one == {("sets/tm_ipc10/distilled.npz", name) for name in ("own", "resnet18")}
    assert one & EXPERIMENT.subjects(record(names=("resnet18", "mlp")))
    assert not one & EXPERIMENT.subjects(record(names=("mlp",)))
    assert not one & EXPERIMENT.subjects(record(path="other.npz"))
    assert EXPERIMENT.sets(record()) == ["sets/tm_ipc10/distilled.npz"]
    assert EXPERIMENT.title(record()) == "runs/x"
    assert EXPERIMENT.networks(record()) == []
