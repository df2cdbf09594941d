"""Options that nothing reads beside others are refused, by every command."""

import importlib

import pytest

from distilljax import launch
from distilljax.types import InputError

SET = "embedded_bptt_ipc1"
UNREAD = {
    "distill": [
        ["--whole_epochs=0", "--whole_seeds=5"],
        ["--confidence=0.8"],
        ["--bptt.inner=adam", "--bptt.inner_momentum=0.5"],
        ["--bptt.momentum=0.9"],
        ["--bptt.first_stage=5"],
        ["--method=tm", "--tm.widen_steps=5"],
        ["--method=dm", "--dm.frequencies=8"],
        ["--method=kernel", "--kernel.solver_iters=5"],
    ],
    "evaluate": [
        [f"--artefact={SET}", "--whole_seeds=5"],
        [f"--artefact={SET}", "--noscores", "--expert_epochs=5"],
    ],
    "cross_architecture": [[f"--artefacts={SET}", "--models=own", "--width_scale=0.5"]],
    "mixing": [[f"--artefacts={SET}", "--width_scale=0.5"]],
    "agreement": [[f"--artefacts={SET}", "--width_scale=0.5"]],
    "dynamics": [
        ["--labels=hard"],
        [f"--artefacts={SET}", "--preprocess=zca"],
        [f"--artefacts={SET}", "--sets=train", "--ipc=3"],
        [f"--train_on={SET}", "--batch=7"],
    ],
    "import_set": [
        [
            "--file=x",
            "--dataset=embedded",
            "--preprocess=normalise",
            "--protocol=study",
            "--seed=5",
        ]
    ],
    "influence": [
        [f"--artefact={SET}", "--estimates=ntk", "--damping=0.5"],
        [f"--artefact={SET}", "--estimates=none", "--ridge=0.5"],
        [f"--artefact={SET}", "--estimates=ntk", "--projections=5"],
    ],
}


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        pytest.param(name, flags, id=f"{name} {flags[-1]}")
        for name, each in UNREAD.items()
        for flags in each
    ],
)
def test_what_has_no_effect_is_refused(name, flags, tmp_path):
    module = importlib.import_module(f"experiments.{name}.run")
    workdir = tmp_path / "run"
    folder = "workdir" if hasattr(module.Config(), "workdir") else "out"
    with pytest.raises(InputError, match=flags[-1].partition("=")[0].lstrip("-")):
        module.run(launch.parse(module.Config, [*flags, f"--{folder}={workdir}"]))
    assert not workdir.exists()
