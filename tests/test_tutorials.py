"""The tutorials of the pages run as they are, and draw the pictures that the pages show."""

import os
import pathlib
import runpy
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TUTORIALS = ROOT / "distilljax" / "docs" / "pages" / "tutorials"
# It sets the devices, which a process does once; that takes half a minute.
ALONE = "devices"
NAMES = [
    pytest.param(path.stem, marks=pytest.mark.slow if path.stem == ALONE else ())
    for path in sorted(TUTORIALS.glob("*.py"))
]


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs_and_draws_its_picture(name, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    image = pytest.importorskip("matplotlib.image")
    script = TUTORIALS / f"{name}.py"
    monkeypatch.chdir(tmp_path)
    if name == ALONE:
        paths = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
        subprocess.run([sys.executable, script], check=True, env={**os.environ, **paths})
    else:
        matplotlib.use("agg")
        # The experiments' style may be set already in this process.
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            runpy.run_path(str(script))
    drawn = image.imread(tmp_path / f"{name}.png")
    assert drawn[..., :3].std() > 0.02
    shown = image.imread(script.with_suffix(".png"))
    assert drawn.shape == shown.shape, "draw the picture of the page again"
    # The picture closes the page, with a text alternative.
    last = script.read_text().rpartition("# %% [markdown]")[2]
    assert f"]({name}.png)" in last
    assert "![" in last
