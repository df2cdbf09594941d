"""The commands that run as several processes, on tiny data.

    python -m tests.devices.hosts FOLDER CASE...                alone
    python -m tests.devices.hosts FOLDER CASE... -- PORT N I    process I of N

Each case writes into FOLDER/alone/CASE, or FOLDER/ofN/CASE, what its command writes;
`numbers` reads it.
"""

import importlib
import json
import pathlib
import socket
import sys

import numpy as np

PATIENCE = 1800.0  # seconds of a run that hangs; on a busy machine one takes minutes

MLP = ("--model=mlp", "--mlp.width=8", "--mlp.depth=1")
DATA = ("--dataset={folder}/stripes.npz", "--held_out=5")
SET = "{folder}/made/distilled.npz"
DISTIL = (
    *MLP, *DATA, "--steps=6", "--score_every=3", "--eval_seeds=3", "--whole_epochs=0",
    "--checkpoint_seconds=0",
)  # fmt: skip
EXPERTS = (
    *MLP, *DATA, "--experts=3", "--together=3", "--epochs=2", "--recipe.batch=20",
    "--recipe.augment=flip", "--recipe.lr=0.05",
)  # fmt: skip
CASES = {  # name -> (command, options)
    "dm": ("distill", (*DISTIL, "--method=dm", "--dm.real_batch=8")),
    "bptt": ("distill", (*DISTIL, "--bptt.unroll=3", "--bptt.real_batch=21")),
    "gm": ("distill", (*DISTIL, "--method=gm", "--gm.real_batch=8", "--gm.outer_loop=2")),
    "kernel": ("distill", (*DISTIL, "--method=kernel", "--kernel.real_batch=21")),
    "experts": ("train_experts", EXPERTS),
    "tm": (
        "distill",
        (*DISTIL, "--method=tm", "--tm.student_steps=2", "--tm.expert_epochs=1",
         "--tm.max_start=1", "--experts_dir={beside}/experts"),
    ),
    "evaluate": ("evaluate", (f"--artefact={SET}", "--seeds=3", "--expert_epochs=1")),
    "agreement": (
        "agreement",
        (f"--artefacts={SET}", "--protocol=own", "--seeds=3", "--subset_networks=5",
         "--subset_low=0.1", "--subset_high=0.4", "--subset_epochs=2", "--early_runs=3",
         "--early_iterations=6", "--early_every=3", "--batch=25", "--lr=0.05",
         "--test_images=47", "--least=2", "--early_least=2", "--tolerance=0.5",
         "--piece=4", "--together=2", "--chunk=8"),
    ),
    "influence": (
        "influence",
        (f"--artefact={SET}", "--seeds=2", "--test_images=12", "--piece=3", "--subsets=3"),
    ),
}  # fmt: skip
VOLATILE = {"seconds", "environment", "peak_memory_bytes", "files"}


def make(folder: pathlib.Path) -> None:
    """Writes the data and a set of real images, which the cases read."""
    from tests.experiments.helpers import write, write_stripes

    path = write_stripes(folder / "stripes.npz")
    write(folder / "made" / "distilled.npz", path, ipc=2, steps=5)


def argv(case: str, folder: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    """Returns the options of a case."""
    places = {"folder": folder, "beside": workdir.parent}
    return [f"--workdir={workdir}", *(o.format(**places) for o in CASES[case][1])]


def numbers(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the numbers that a finished run has found, by name."""
    summary = json.loads((workdir / "summary.json").read_text())
    found = dict(_leaves(summary, "summary"))
    for path in sorted(workdir.glob("*.np[yz]")):
        held = np.load(path)
        arrays = held if path.suffix == ".npz" else {"": held}
        found |= {
            f"{path.name} {name}": arrays[name]
            for name in arrays
            if np.asarray(arrays[name]).dtype.kind in "fiub"
        }
    return found


def _leaves(value, name):
    if isinstance(value, dict):
        for key, one in value.items():
            if key not in VOLATILE:
                yield from _leaves(one, f"{name}.{key}")
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield from _leaves(one, f"{name}.{i}")
    elif isinstance(value, int | float):
        yield name, np.float64(value)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def assert_same_numbers(found: pathlib.Path, wanted: pathlib.Path) -> None:
    """Checks that two runs agree, but for the order in which sums are rounded."""
    ours, theirs = numbers(found), numbers(wanted)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        scale = max(1e-3, float(np.nanmax(np.abs(value), initial=0)))
        np.testing.assert_allclose(ours[name], value, atol=2e-3 * scale, err_msg=name)


def main() -> None:
    folder, *words = sys.argv[1:]
    cases, _, where = " ".join(words).partition(" -- ")
    from distilljax import launch, processes

    out = pathlib.Path(folder) / "alone"
    if where:
        port, num, index = map(int, where.split())
        processes.start(f"127.0.0.1:{port}", num, index)
        out = pathlib.Path(folder) / f"of{num}"
    for case in cases.split():
        command = importlib.import_module(f"experiments.{CASES[case][0]}.run")
        config = command.Config
        command.run(launch.parse(config, argv(case, pathlib.Path(folder), out / case)))
    if where:
        import jax

        jax.distributed.shutdown()


if __name__ == "__main__":
    main()
