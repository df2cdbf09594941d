"""PyHessian's trace, for `benchmarks.curvature`."""

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
