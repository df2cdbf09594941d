"""What the works of PyTorch are made of: the arrays of a case, and an outer step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.torch_baseline import convnet

Work = Callable[[], dict[str, Any]]
LossAndGrads = Callable[..., tuple[Tensor, Sequence[Tensor]]]


class Given:
    """The arrays of a case as tensors on a device."""

    def __init__(self, given: Mapping[str, Any], device: str):
        self.given, self.device = given, device
        self.shape = given["images"].shape[1:]

    def images(self, name: str) -> Tensor:
        """Converts images [b, h, w, c] to a tensor [b, c, h, w]."""
        return convnet.images(self.given[name]).to(self.device)

    def labels(self, name: str) -> Tensor:
        """Converts labels to a tensor i64[b]."""
        return torch.tensor(self.given[name], dtype=torch.int64, device=self.device)

    def by_class(self, name: str) -> list[Tensor]:
        """Converts images [k, b, h, w, c] to k tensors [b, c, h, w]."""
        return [convnet.images(x).to(self.device) for x in self.given[name]]

    def batches(self) -> list[list[Tensor]]:
        """Returns the positions of the images of each batch, by network."""
        return [
            [torch.tensor(where, dtype=torch.int64, device=self.device) for where in each]
            for each in self.given["batches"]
        ]

    def network(self, name: str = "params") -> nn.Module:
        """Returns the ConvNet with parameters of the case."""
        return self.module(self.given[name])

    def module(self, params: Mapping[str, Any]) -> nn.Module:
        """Returns the ConvNet with these parameters."""
        return convnet.convnet(params, self.shape).to(self.device)


def differentiated(loss_fn: Callable[..., Tensor]) -> LossAndGrads:
    """Returns a function of tensors that gives the loss and its derivatives by them."""

    def both(*learned: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        learned = tuple(x.clone().requires_grad_() for x in learned)
        loss = loss_fn(*learned)
        return loss, torch.autograd.grad(loss, learned)

    return both


def outer(images: Tensor, loss_and_grads: LossAndGrads, *others: Tensor) -> Work:
    """Returns an outer step: the loss, its gradient and an SGD update of the images.

    Args:
      images: distilled images.
      loss_and_grads: (images, *others) -> loss, and its derivatives by the arguments.
      others: further learned tensors.
    """

    def step() -> dict[str, Any]:
        learned = [x.clone().requires_grad_() for x in (images, *others)]
        optimizer = torch.optim.SGD(learned, lr=0.1, momentum=0.5)
        loss, found = loss_and_grads(*(x.detach() for x in learned))
        for x, grad in zip(learned, found, strict=True):
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


def left_out(g: Given, trained: Callable[[int | None], Tensor]) -> Work:
    """Returns the test losses of networks that are each trained without an image.

    Args:
      g: the arrays of the case.
      trained: image left out -> test logits after training.
    """
    labels = g.labels("test_labels")

    def run() -> dict[str, Any]:
        each = [
            cross_entropy(trained(j), labels, reduction="none") for j in g.given["left_out"]
        ]
        return {"losses": torch.stack(each).cpu().numpy()}

    return run


def summary(values: Tensor) -> dict[str, Any]:
    """Returns mean and standard error of the probes of a trace."""
    error = values.std() / len(values) ** 0.5
    return {"trace": values.mean().item(), "standard_error": error.item()}
