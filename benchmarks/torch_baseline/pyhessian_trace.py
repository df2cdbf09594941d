"""PyHessian's trace in a process of its own, for `benchmarks.curvature`.

    python -m benchmarks.torch_baseline.pyhessian_trace given.npz result.json

`given.npz` holds images, labels, the number of probes, and parameters by path.
"""

import json
import pathlib
import sys
import time
from typing import Any

import numpy as np
import torch
from pyhessian import hessian

from benchmarks.torch_baseline.convnet import convnet, images


def trace(params: Any, x: np.ndarray, y: np.ndarray, num_probes: int) -> list[float]:
    """v^T H v of `num_probes` Rademacher probes, as PyHessian computes them.

    Its rule to stop is switched off: it would end after a few probes.

    Args:
      params: of the ConvNet.
      x: f32[n, h, w, c].
      y: i[n], labels.
      num_probes: how many.
    """
    network = convnet(params, x.shape[1:])
    given = images(x), torch.tensor(np.asarray(y, np.int64))
    found = hessian(network, torch.nn.CrossEntropyLoss(), data=given, cuda=False)
    return found.trace(maxIter=num_probes, tol=float("-inf"))


def nested(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """Parameters by path, a/b/c, as nested dictionaries."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *groups, name = path.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = leaf
    return tree


def resident(field: str) -> int:
    """Bytes: `VmRSS`, held now, or `VmHWM`, the most so far. Linux only."""
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = (x for x in status.splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


def main(given: str, result: str) -> None:
    """Reads, computes, writes."""
    with np.load(given) as held:
        arrays = dict(held)
    x, y = arrays.pop("images"), arrays.pop("labels")
    num_probes = int(arrays.pop("num_probes"))
    params = nested(arrays)
    before = resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    wall, cpu = time.perf_counter(), time.process_time()
    values = trace(params, x, y, num_probes)
    record = {
        "values": values,
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "bytes": resident("VmHWM") - before,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    pathlib.Path(result).write_text(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
