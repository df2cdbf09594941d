"""Distillation and evaluation in idiomatic PyTorch.

Loops in Python, double backward by `create_graph`, and `functional_call` where training is
differentiated. Learned tensors require a gradient, and a loss is returned with its graph:
the caller differentiates it.

Images are [b, c, h, w], labels i64[b]; any floating type.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

EPS = 1e-6  # added to products of norms, against division by zero


def _call(network: nn.Module, params: Sequence[Tensor], images: Tensor) -> Tensor:
    names = [name for name, _ in network.named_parameters()]
    return functional_call(network, dict(zip(names, params, strict=True)), (images,))


def bptt(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    real: tuple[Tensor, Tensor],
    *,
    learning_rate: float,
    momentum: float,
    num_steps: int,
) -> Tensor:
    """Returns the loss on real images after SGD with momentum on the distilled set."""
    params = [p.detach().clone().requires_grad_() for p in network.parameters()]
    velocity = [torch.zeros_like(p) for p in params]
    for _ in range(num_steps):
        loss = cross_entropy(_call(network, params, images), labels)
        grads = torch.autograd.grad(loss, params, create_graph=True)
        velocity = [momentum * v + g for v, g in zip(velocity, grads, strict=True)]
        params = [p - learning_rate * v for p, v in zip(params, velocity, strict=True)]
    return cross_entropy(_call(network, params, real[0]), real[1])


def tm(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    target: Sequence[Tensor],
    log_lr: Tensor,
    *,
    num_steps: int,
) -> Tensor:
    """Returns the squared distance to an expert's target after SGD, over the initial one.

    The student starts at the parameters of `network`; its learning rate is exp(log_lr).
    """
    start = [p.detach() for p in network.parameters()]
    student = [p.clone().requires_grad_() for p in start]
    rate = log_lr.exp()
    for _ in range(num_steps):
        loss = cross_entropy(_call(network, student, images), labels)
        grads = torch.autograd.grad(loss, student, create_graph=True)
        student = [p - rate * g for p, g in zip(student, grads, strict=True)]

    def gap(params: Sequence[Tensor]) -> Tensor:
        pairs = zip(params, target, strict=True)
        return torch.stack([(p - t).square().sum() for p, t in pairs]).sum()

    return gap(student) / gap(start)


def row_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Returns 1 - cosine summed over output channels of all weights, without biases."""
    total = ours[0].new_zeros(())
    for a, b in zip(ours, theirs, strict=True):
        if a.ndim == 1:
            continue
        a, b = a.flatten(1), b.flatten(1)
        lengths = a.norm(dim=1) * b.norm(dim=1)
        total = total + (1 - (a * b).sum(1) / (lengths + EPS)).sum()
    return total


def gm(network: nn.Module, images: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Returns the distance of gradients of real and distilled images, summed over classes.

    Args:
      network: a network with fixed parameters.
      images: distilled images of each class.
      real: real images of each class.
    """
    params = list(network.parameters())

    def labels(given: Tensor, label: int) -> Tensor:
        return torch.full((len(given),), label, device=given.device)

    total = images[0].new_zeros(())
    for label, (ours, theirs) in enumerate(zip(images, real, strict=True)):
        wanted = torch.autograd.grad(
            cross_entropy(network(theirs), labels(theirs, label)), params
        )
        loss = cross_entropy(network(ours), labels(ours, label))
        grads = torch.autograd.grad(loss, params, create_graph=True)
        total = total + row_distance(grads, wanted)
    return total


def dm(features: nn.Module, images: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Returns the squared distance of class means of features, summed over classes."""
    total = images[0].new_zeros(())
    for ours, theirs in zip(images, real, strict=True):
        with torch.no_grad():
            wanted = features(theirs).mean(0)
        total = total + (features(ours).mean(0) - wanted).square().sum()
    return total


def forms(
    network: nn.Module, images: Tensor, labels: Tensor, probes: Sequence[Sequence[Tensor]]
) -> Tensor:
    """Returns v^T H v of each probe, reverse over reverse with the graph kept."""
    params = list(network.parameters())
    loss = cross_entropy(network(images), labels)
    grads = torch.autograd.grad(loss, params, create_graph=True)

    def form(v: Sequence[Tensor]) -> Tensor:
        found = torch.autograd.grad(grads, params, grad_outputs=v, retain_graph=True)
        return torch.stack([(a * b).sum() for a, b in zip(found, v, strict=True)]).sum()

    return torch.stack([form(v) for v in probes])


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    num_steps: int,
    learning_rate: float,
    momentum: float,
) -> None:
    """Trains in place by SGD with full batches."""
    whole = [slice(None)] * num_steps
    train_on_batches(
        network, images, labels, whole, learning_rate=learning_rate, momentum=momentum
    )


def train_on_batches(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    batches: Sequence[Tensor | slice],
    *,
    learning_rate: float,
    momentum: float,
) -> None:
    """Trains in place by SGD on batches given by positions."""
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=momentum)
    for where in batches:
        optimizer.zero_grad()
        cross_entropy(network(images[where]), labels[where]).backward()
        optimizer.step()


def predict(network: nn.Module, images: Tensor, chunk: int = 500) -> Tensor:
    """Returns logits, computed `chunk` images at a time without gradients."""
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(chunk)])
