"""A tiny data set in a file, and experts trained on it."""

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from distilljax import launch
from experiments.train_experts import run as train_experts_run
from tests.experiments.helpers import write_stripes

MLP = ["--model=mlp", "--mlp.width=16", "--mlp.depth=1"]


@pytest.fixture(scope="package", autouse=True)
def plain_pictures():
    """Draws coarsely; fails where one shows the source of a formula, as a tick's $10^2$."""
    save = Figure.savefig

    def checked(figure, *args, **kwargs):
        save(figure, *args, **{"dpi": 40} | kwargs)
        for text in figure.findobj(Text):
            assert text.get_parse_math() or "mathdefault" not in text.get_text()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", checked)
        yield


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    return write_stripes(tmp_path_factory.mktemp("data") / "stripes.npz")


@pytest.fixture(scope="session")
def experts(dataset, tmp_path_factory):
    """The folder of two experts of five epochs."""
    workdir = tmp_path_factory.mktemp("experts") / "store"
    argv = [
        f"--dataset={dataset}",
        f"--workdir={workdir}",
        *MLP,
        "--held_out=5",
        "--experts=2",
        "--epochs=5",
        "--recipe.batch=20",
        "--recipe.lr=0.05",
        "--recipe.augment=",
    ]
    train_experts_run.run(launch.parse(train_experts_run.Config, argv))
    return workdir
