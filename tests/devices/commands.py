"""Commands on 4 devices and on 1; distillations also begun on 4 or 1, resumed on 1 or 4.

    python -m tests.devices.commands FOLDER CASE...    needs 4 devices

Prints a line for each run with other numbers than on one device.
"""

import pathlib
import sys
import time

import jax

from distilljax import launch
from experiments.coresets import run as coresets
from experiments.distill import run as distill
from experiments.dynamics import run as dynamics
from experiments.train_experts import run as train_experts
from tests.devices import hosts

STEPS = 6
# Each way takes the steps in equal parts, on so many devices.
RESUMED = {"four": (4,), "four_one": (4, 1), "one_four": (1, 4)}
DISTILLATIONS = tuple(n for n, (command, _) in hosts.CASES.items() if command == "distill")
OTHERS = {  # name -> (module, options)
    "coresets": (coresets, (*hosts.DATA, *hosts.MLP, "--seeds=5", "--ipcs=2")),
    "dynamics": (
        dynamics,
        (*hosts.MLP, f"--artefacts={hosts.SET}", "--iterations=4", "--every=2", "--runs=2",
         "--batch=20", "--sets=test,random", "--ipc=3", "--hessian_trace.num_probes=6",
         "--probes=accuracy,hessian_trace,hessian_eigenvalues,hessian_spectrum,ntk",
         "--hessian_spectrum.num_iters=3", "--hessian_eigenvalues.num_iters=8"),
    ),
}  # fmt: skip
CASES = (*DISTILLATIONS, *OTHERS)


def ran(
    case: str, folder: pathlib.Path, way: str, devices: tuple[int, ...]
) -> pathlib.Path:
    """Returns the folder of a finished run."""
    workdir = folder / way / case
    for part, num in enumerate(devices, 1):
        chosen = f"--devices={num}"
        if case in OTHERS:
            module, options = OTHERS[case]
            argv = [f"--workdir={workdir}", *(o.format(folder=folder) for o in options)]
        else:
            module, steps = distill, f"--steps={STEPS * part // len(devices)}"
            argv = [*hosts.argv(case, folder, workdir), steps]
        module.run(launch.parse(module.Config, [*argv, chosen]))
    return workdir


def make_experts(folder: pathlib.Path) -> None:
    """Trains those that `tm` reads, for every way."""
    argv = hosts.argv("experts", folder, folder / "experts")
    train_experts.run(launch.parse(train_experts.Config, [*argv, "--devices=1"]))
    for way in ("one", *RESUMED):
        (folder / way).mkdir(exist_ok=True)
        (folder / way / "experts").symlink_to(folder / "experts")


def main() -> None:
    assert jax.device_count() == 4
    folder, failures = pathlib.Path(sys.argv[1]), 0
    for case in sys.argv[2:]:
        began = time.process_time()
        if case == "tm":
            make_experts(folder)
        wanted = ran(case, folder, "one", (1,))
        for way, devices in RESUMED.items() if case in DISTILLATIONS else [("four", (4,))]:
            try:
                hosts.assert_same_numbers(ran(case, folder, way, devices), wanted)
            except AssertionError as error:
                failures += 1
                print(f"{case}, {way}: {error}", flush=True)
        took = time.process_time() - began
        print(f"{case}: {took:.1f} CPU s", file=sys.stderr, flush=True)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
