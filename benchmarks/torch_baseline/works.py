"""The cases of `benchmarks.side_by_side` in PyTorch.

Inputs and outputs are plain arrays, so that it can run in another process.
"""

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.torch_baseline import convnet, steps

Work = Callable[[], dict[str, Any]]


class _Given:
    """The arrays of a case as tensors on a device."""

    def __init__(self, given: Mapping[str, Any], device: str):
        self.given, self.device = given, device
        self.shape = given["images"].shape[1:]

    def images(self, name: str) -> Tensor:
        """Converts images [b, h, w, c] to a tensor [b, c, h, w]."""
        return convnet.images(self.given[name]).to(self.device)

    def labels(self, name: str) -> Tensor:
        return torch.tensor(self.given[name], dtype=torch.int64, device=self.device)

    def by_class(self, name: str) -> list[Tensor]:
        """Converts images [k, b, h, w, c] to k tensors [b, c, h, w]."""
        return [convnet.images(x).to(self.device) for x in self.given[name]]

    def network(self, name: str = "params") -> nn.Module:
        return convnet.convnet(self.given[name], self.shape).to(self.device)


def _outer(images: Tensor, loss_fn: Callable[..., Tensor], *others: Tensor) -> Work:
    """Returns an outer step: the loss, its gradient and an SGD update of the images.

    Args:
      images: distilled images.
      loss_fn: (images, *others) -> loss.
      others: further learned tensors.
    """

    def step() -> dict[str, Any]:
        learned = [x.clone().requires_grad_() for x in (images, *others)]
        optimizer = torch.optim.SGD(learned, lr=0.1, momentum=0.5)
        loss = loss_fn(*learned)
        for x, grad in zip(learned, torch.autograd.grad(loss, learned), strict=True):
            x.grad = grad
        optimizer.step()
        grads = [x.grad for x in learned if x.grad is not None]
        norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
        return {
            "loss": loss.item(),
            "norm": norm.item(),
            "gradient": grads[0].permute(0, 2, 3, 1).cpu().numpy(),
        }

    return step


def _bptt(g: _Given) -> Work:
    network, labels = g.network(), g.labels("labels")
    real = g.images("real_images"), g.labels("real_labels")
    settings = {n: g.given[n] for n in ("learning_rate", "momentum", "num_steps")}
    return _outer(
        g.images("images"), lambda x: steps.bptt(network, x, labels, real, **settings)
    )


def _tm(g: _Given) -> Work:
    network, labels, num = g.network(), g.labels("labels"), g.given["num_steps"]
    target = [p.detach() for p in g.network("target").parameters()]
    images = g.images("images")
    log_lr = torch.tensor(g.given["log_lr"], dtype=images.dtype, device=g.device)
    return _outer(
        images,
        lambda x, rate: steps.tm(network, x, labels, target, rate, num_steps=num),
        log_lr,
    )


def _gm(g: _Given) -> Work:
    network, real = g.network(), g.by_class("real_by_class")
    return _outer(g.images("images"), lambda x: steps.gm(network, x.chunk(len(real)), real))


def _dm(g: _Given) -> Work:
    network, real = g.network(), g.by_class("real_by_class")
    features = nn.Sequential(*network.children())[:-1].requires_grad_(False)
    return _outer(
        g.images("images"), lambda x: steps.dm(features, x.chunk(len(real)), real)
    )


def _training(g: _Given) -> Callable[[int | None], Tensor]:
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


def _train(g: _Given) -> Work:
    trained = _training(g)
    return lambda: {"logits": trained(None).cpu().numpy()}


def _loo(g: _Given) -> Work:
    trained, labels = _training(g), g.labels("test_labels")

    def run() -> dict[str, Any]:
        each = [
            cross_entropy(trained(j), labels, reduction="none") for j in g.given["left_out"]
        ]
        return {"losses": torch.stack(each).cpu().numpy()}

    return run


def _pool(g: _Given) -> Work:
    network, images, labels = g.network(), g.images("real_images"), g.labels("real_labels")
    test_images = g.images("test_images")
    settings = {n: g.given[n] for n in ("learning_rate", "momentum")}
    batches = [
        [torch.tensor(where, dtype=torch.int64, device=g.device) for where in each]
        for each in g.given["batches"]
    ]

    def run() -> dict[str, Any]:
        logits = []
        for each in batches:
            fresh = copy.deepcopy(network)
            steps.train_on_batches(fresh, images, labels, each, **settings)
            logits.append(steps.predict(fresh, test_images))
        return {"logits": torch.stack(logits).cpu().numpy()}

    return run


WORKS = {
    "bptt": _bptt,
    "gm": _gm,
    "dm": _dm,
    "tm": _tm,
    "train": _train,
    "loo": _loo,
    "pool": _pool,
}


def make(cases: Mapping[str, Mapping[str, Any]], device: str = "cpu") -> dict[str, Any]:
    """Returns the works of cases by name, with `about` and a large matrix `product`.

    Args:
      cases: arrays of `benchmarks.cases` by name; a name is a key of `WORKS`, optionally
        followed by a dot and a suffix.
      device: device of PyTorch.

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

    works: dict[str, Any] = {
        name: WORKS[name.partition(".")[0]](_Given(given, device))
        for name, given in cases.items()
    }
    return works | {
        "product": product,
        "about": lambda: {"torch": torch.__version__, "threads": torch.get_num_threads()},
    }
