"""PyHessian's trace, for `benchmarks.curvature`."""

from typing import Any

import numpy as np
import torch
from pyhessian import hessian

from benchmarks.torch_baseline.convnet import convnet, images


def trace(params: Any, x: np.ndarray, y: np.ndarray, num_probes: int) -> list[float]:
    """Returns v^T H v of `num_probes` Rademacher probes, computed by PyHessian.

    Its stopping rule, which would end after a few probes, is disabled.

    Args:
      params: parameters of the ConvNet.
      x: f32[n, h, w, c].
      y: i[n], labels.
      num_probes: number of probes.
    """
    network = convnet(params, x.shape[1:])
    given = images(x), torch.tensor(np.asarray(y, np.int64))
    found = hessian(network, torch.nn.CrossEntropyLoss(), data=given, cuda=False)
    return found.trace(maxIter=num_probes, tol=float("-inf"))
