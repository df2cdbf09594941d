"""The cases of `benchmarks.side_by_side` in the tuned PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.torch_baseline import tuned
from benchmarks.torch_baseline.given import Given, Work, left_out, outer, summary
from benchmarks.torch_baseline.tuned import Derivatives, Params, channels_last


def _params(g: Given, given: Mapping[str, Any]) -> Params:
    return [channels_last(p.detach()) for p in g.module(given).parameters()]


def _images(g: Given, name: str) -> Tensor:
    return channels_last(g.images(name))


def _bptt(g: Given, of: Derivatives) -> Work:
    params, labels = _params(g, g.given["params"]), g.labels("labels")
    real = _images(g, "real_images"), g.labels("real_labels")
    settings = {n: g.given[n] for n in ("learning_rate", "momentum", "num_steps")}
    return outer(
        _images(g, "images"), lambda x: tuned.bptt(of, params, x, labels, real, **settings)
    )


def _tm(g: Given, of: Derivatives) -> Work:
    params, target = (_params(g, g.given[n]) for n in ("params", "target"))
    labels, num, images = g.labels("labels"), g.given["num_steps"], _images(g, "images")
    log_lr = torch.tensor(g.given["log_lr"], dtype=images.dtype, device=g.device)

    def loss_and_grads(x: Tensor, rate: Tensor) -> Any:
        return tuned.tm(of, params, x, labels, target, rate, num_steps=num)

    return outer(images, loss_and_grads, log_lr)


def _by_class(step: Callable[..., Any]) -> Callable[[Given, Derivatives], Work]:
    def make(g: Given, of: Derivatives) -> Work:
        params = _params(g, g.given["params"])
        real = [channels_last(x) for x in g.by_class("real_by_class")]
        return outer(
            _images(g, "images"), lambda x: step(of, params, x.chunk(len(real)), real)
        )

    return make


def _training(g: Given, of: Derivatives) -> Callable[[int | None], Tensor]:
    """Returns (image left out or None) -> test logits after training."""
    params, images = _params(g, g.given["params"]), _images(g, "images")
    labels, test_images = g.labels("labels"), _images(g, "test_images")
    settings = {n: g.given[n] for n in ("learning_rate", "momentum")}

    def trained(left_out: int | None) -> Tensor:
        where = torch.arange(len(labels), device=g.device)
        kept = slice(None) if left_out is None else where[where != left_out]
        batch = channels_last(images[kept]), labels[kept]
        batches = [slice(None)] * g.given["num_steps"]
        fresh = tuned.train_on_batches(of, params, *batch, batches, **settings)
        return of.logits(fresh, test_images)

    return trained


def _train(g: Given, of: Derivatives) -> Work:
    trained = _training(g, of)
    return lambda: {"logits": trained(None).cpu().numpy()}


def _loo(g: Given, of: Derivatives) -> Work:
    return left_out(g, _training(g, of))


def _pool(g: Given, of: Derivatives) -> Work:
    params, images = _params(g, g.given["params"]), _images(g, "real_images")
    labels, test_images = g.labels("real_labels"), _images(g, "test_images")
    settings = {n: g.given[n] for n in ("learning_rate", "momentum")}
    batches = g.batches()

    def run() -> dict[str, Any]:
        logits = []
        for each in batches:
            fresh = tuned.train_on_batches(of, params, images, labels, each, **settings)
            logits.append(of.logits(fresh, test_images))
        return {"logits": torch.stack(logits).cpu().numpy()}

    return run


def _trace(g: Given, of: Derivatives) -> Work:
    batch = _images(g, "images"), g.labels("labels")
    params = _params(g, g.given["params"])
    probes = [_params(g, probe) for probe in g.given["probes"]]

    def run() -> dict[str, Any]:
        return summary(torch.stack([of.form(params, *batch, v) for v in probes]))

    return run


WORKS: dict[str, Callable[[Given, Derivatives], Work]] = {
    "bptt": _bptt,
    "gm": _by_class(tuned.gm),
    "dm": _by_class(tuned.dm),
    "tm": _tm,
    "train": _train,
    "loo": _loo,
    "pool": _pool,
    "trace": _trace,
}
