"""The cases of `benchmarks.side_by_side` in PyTorch, plain and tuned.

Inputs and outputs are plain arrays, so that it can run in another process.
"""

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.torch_baseline import TUNED, steps, tuned, tuned_works
from benchmarks.torch_baseline.given import (
    Given,
    Work,
    differentiated,
    left_out,
    outer,
    summary,
)


def _bptt(g: Given) -> Work:
    network, labels = g.network(), g.labels("labels")
    real = g.images("real_images"), g.labels("real_labels")
    settings = {n: g.given[n] for n in ("learning_rate", "momentum", "num_steps")}
    return outer(
        g.images("images"),
        differentiated(lambda x: steps.bptt(network, x, labels, real, **settings)),
    )


def _tm(g: Given) -> Work:
    network, labels, num = g.network(), g.labels("labels"), g.given["num_steps"]
    target = [p.detach() for p in g.network("target").parameters()]
    images = g.images("images")
    log_lr = torch.tensor(g.given["log_lr"], dtype=images.dtype, device=g.device)
    return outer(
        images,
        differentiated(
            lambda x, rate: steps.tm(network, x, labels, target, rate, num_steps=num)
        ),
        log_lr,
    )


def _gm(g: Given) -> Work:
    network, real = g.network(), g.by_class("real_by_class")
    return outer(
        g.images("images"),
        differentiated(lambda x: steps.gm(network, x.chunk(len(real)), real)),
    )


def _dm(g: Given) -> Work:
    network, real = g.network(), g.by_class("real_by_class")
    features = nn.Sequential(*network.children())[:-1].requires_grad_(False)
    return outer(
        g.images("images"),
        differentiated(lambda x: steps.dm(features, x.chunk(len(real)), real)),
    )


def _training(g: Given) -> Callable[[int | None], Tensor]:
    """Returns (image left out or None) -> test logits after training."""
    network, images, labels = g.network(), g.images("images"), g.labels("labels")
    test_images = g.images("test_images")
    settings = {n: g.given[n] for n in ("learning_rate", "momentum", "num_steps")}

    def trained(left_out: int | None) -> Tensor:
        given = [images, labels]
        if left_out is not None:
            given = [torch.cat([x[:left_out], x[left_out + 1 :]]) for x in given]
        fresh = copy.deepcopy(network)
        steps.train(fresh, *given, **settings)
        return steps.predict(fresh, test_images)

    return trained


def _train(g: Given) -> Work:
    trained = _training(g)
    return lambda: {"logits": trained(None).cpu().numpy()}


def _loo(g: Given) -> Work:
    return left_out(g, _training(g))


def _pool(g: Given) -> Work:
    network, images, labels = g.network(), g.images("real_images"), g.labels("real_labels")
    test_images = g.images("test_images")
    settings = {n: g.given[n] for n in ("learning_rate", "momentum")}
    batches = g.batches()

    def run() -> dict[str, Any]:
        logits = []
        for each in batches:
            fresh = copy.deepcopy(network)
            steps.train_on_batches(fresh, images, labels, each, **settings)
            logits.append(steps.predict(fresh, test_images))
        return {"logits": torch.stack(logits).cpu().numpy()}

    return run


def _trace(g: Given) -> Work:
    network, images, labels = g.network(), g.images("images"), g.labels("labels")
    probes = [list(g.module(probe).parameters()) for probe in g.given["probes"]]
    return lambda: summary(steps.forms(network, images, labels, probes))


WORKS = {
    "bptt": _bptt,
    "gm": _gm,
    "dm": _dm,
    "tm": _tm,
    "train": _train,
    "loo": _loo,
    "pool": _pool,
    "trace": _trace,
}


def make(
    cases: Mapping[str, Mapping[str, Any]],
    device: str = "cpu",
    backend: str = "inductor",
) -> dict[str, Any]:
    """Returns the works of cases by name, with `about` and a large matrix `product`.

    The tuned works have the same names after `TUNED`.

    Args:
      cases: arrays of `benchmarks.cases` by name; a name is a key of `WORKS`, optionally
        followed by a dot and a suffix.
      device: device of PyTorch.
      backend: how `torch.compile` compiles the tuned works.

    Raises:
      RuntimeError: PyTorch does not have the device.
    """
    torch.backends.cudnn.allow_tf32 = False
    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    side = 2048 if device == "cpu" else 8192
    x = torch.full((side, side), 0.5, device=device)

    def product() -> None:
        torch.mm(x, x)
        if device != "cpu":
            torch.cuda.synchronize()

    chunk = tuned.CHUNK if device == "cpu" else None
    derivatives = tuned.Derivatives(chunk, backend)
    works: dict[str, Any] = {}
    for name, given in cases.items():
        kind, arrays = name.partition(".")[0], Given(given, device)
        works[name] = WORKS[kind](arrays)
        works[TUNED + name] = tuned_works.WORKS[kind](arrays, derivatives)
    return works | {
        "product": product,
        "about": lambda: {"torch": torch.__version__, "threads": torch.get_num_threads()},
    }
