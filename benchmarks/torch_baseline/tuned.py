"""Distillation and evaluation in PyTorch as fast as it gets on a CPU: the tuned baseline.

What differs from `steps` (benchmarks/README.md has what each gives):
- The derivatives that cost time are compiled: the gradient of a piece of a batch
  (`Derivatives.gradient`), the pull-back of a gradient (`pull`), the distances of a class,
  quadratic forms of the Hessian. A compiled loss cannot be differentiated twice ("does not
  currently support double backward"), so second derivatives are `torch.func` transforms
  inside the function that is compiled, and the reverse pass through training is a loop in
  Python over the parameters of its steps.
- Pieces of a batch that fit the cache, all of one shape; what is missing from the last one
  are images without a label, which the loss ignores.
- Convolutions on tensors stored channels last, without the bias that the norm takes away.
- Updates of all parameters in one call.

Parameters are the tensors of a `convnet` in the order of `parameters()`; images are
[b, c, h, w], labels i64[b], any floating type.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, grad_and_value
from torch.nn import functional as F

from benchmarks.torch_baseline.steps import row_distance

Params = list[Tensor]
CHUNK = range(8, 13)  # images of a piece on a CPU
NO_LABEL = -100  # of images that the loss ignores


def channels_last(x: Tensor) -> Tensor:
    """Stores a tensor of four axes channels last."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def features(params: Params, images: Tensor) -> Tensor:
    """Returns the features of the ConvNet before its linear layer, [b, d].

    The norm is written out, since the second derivatives of `group_norm` are slower, and
    its forward derivative fails channels last.
    """
    x = images
    for weight, _, scale, shift in zip(*[iter(params[:-2])] * 4, strict=True):
        x = F.conv2d(x, weight, padding=1)
        x = x - x.mean((2, 3), keepdim=True)
        deviation = torch.rsqrt(x.square().mean((2, 3), keepdim=True) + 1e-5)
        x = x * (deviation * scale[:, None, None]) + shift[:, None, None]
        x = F.avg_pool2d(F.relu(x), 2)
    return x.flatten(1)


def logits(params: Params, images: Tensor) -> Tensor:
    """Returns logits, [b, k]."""
    return F.linear(features(params, images), *params[-2:])


def summed_loss(params: Params, images: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross-entropy summed over the images that have a label."""
    return F.cross_entropy(
        logits(params, images), labels, reduction="sum", ignore_index=NO_LABEL
    )


def _slope(params: Params, images: Tensor, labels: Tensor, cotangent: Params) -> Tensor:
    """Returns <gradient of the summed loss, cotangent>."""
    found = grad(summed_loss)(params, images, labels)
    pairs = zip(found, cotangent, strict=True)
    return torch.stack([(a * b).sum() for a, b in pairs]).sum()


def _form(params: Params, images: Tensor, labels: Tensor, v: Params) -> Tensor:
    """Returns v^T H v of the summed loss: d^2/dt^2 at params + t v, layer by layer.

    Two `torch.func.jvp` in each other would compute first derivatives twice, and those of
    the images, which are zero.
    """
    taylor: Any = images, None, None
    layers = zip(*[iter(params[:-2])] * 4, *[iter(v[:-2])] * 4, strict=True)
    for weight, _, scale, shift, d_weight, _, d_scale, d_shift in layers:
        taylor = _product(_conv, taylor, weight, d_weight)
        taylor = _norm(taylor, scale, shift, d_scale, d_shift)
        active = taylor[0] > 0
        taylor = [F.avg_pool2d(torch.where(active, x, 0), 2) for x in taylor]
    flat = tuple(x.flatten(1) for x in taylor)
    z, dz, ddz = _product(F.linear, flat, params[-2], v[-2])
    z, dz = z + params[-1], dz + v[-1]
    chances = z.softmax(1)
    second = (chances * (ddz + dz.square())).sum(1) - (chances * dz).sum(1).square()
    chosen = ddz.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return torch.where(labels >= 0, second - chosen, 0).sum()


def _conv(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


def _product(
    of: Callable[[Tensor, Tensor], Tensor], taylor: Any, weight: Tensor, d_weight: Tensor
) -> Any:
    """Returns value, first and second derivative of a product; None stands for zero."""
    x, dx, ddx = taylor
    weights = torch.cat([weight, d_weight])
    if dx is None:
        return *of(x, weights).chunk(2, 1), None
    both = of(torch.cat([x, dx]), weights)
    with_x, with_dx = (part.chunk(2, 1) for part in both.chunk(2))
    second = 2 * with_dx[1]
    if ddx is not None:
        second = second + of(ddx, weight)
    return with_x[0], with_x[1] + with_dx[0], second


def _norm(
    taylor: Any, scale: Tensor, shift: Tensor, d_scale: Tensor, d_shift: Tensor
) -> Any:
    """Returns value, first and second derivative of the norm; None stands for zero."""

    def mean(x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)

    x, dx = (each - mean(each) for each in taylor[:2])
    ddx = taylor[2] if taylor[2] is None else taylor[2] - mean(taylor[2])
    scale, shift, d_scale, d_shift = (
        each[:, None, None] for each in (scale, shift, d_scale, d_shift)
    )
    d_var, dd_var = 2 * mean(x * dx), 2 * mean(dx * dx)
    if ddx is not None:
        dd_var = dd_var + 2 * mean(x * ddx)
    r = torch.rsqrt(mean(x * x) + 1e-5)
    dr = -0.5 * r**3 * d_var
    ddr = 0.75 * r**5 * d_var.square() - 0.5 * r**3 * dd_var
    by, d_by, dd_by = r * scale, dr * scale + r * d_scale, ddr * scale + 2 * dr * d_scale
    second = 2 * dx * d_by + x * dd_by
    if ddx is not None:
        second = second + ddx * by
    return x * by + shift, dx * by + x * d_by + d_shift, second


def _gradient_distance(
    images: Tensor, params: Params, labels: Tensor, wanted: Params
) -> Tensor:
    found = grad(summed_loss)(params, images, labels)
    return row_distance([g / len(images) for g in found], wanted)


def _mean_distance(images: Tensor, params: Params, wanted: Tensor) -> Tensor:
    return (features(params, images).mean(0) - wanted).square().sum()


class Derivatives:
    """The compiled functions, and their sums over the pieces of a batch.

    Args:
      chunk: sizes of a piece to choose from, the one that leaves the fewest places empty;
        None for whole batches.
      backend: backend of `torch.compile`.
    """

    def __init__(self, chunk: Iterable[int] | None = CHUNK, backend: str = "inductor"):
        def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
            return torch.compile(function, fullgraph=True, dynamic=False, backend=backend)

        self._sizes = None if chunk is None else list(chunk)
        self._features, self._logits = compiled(features), compiled(logits)
        self._gradient = compiled(grad_and_value(summed_loss))
        self._pull = compiled(grad(_slope, argnums=(0, 1)))
        self._form = compiled(_form)
        self.gradient_distance = compiled(grad_and_value(_gradient_distance))
        self.mean_distance = compiled(grad_and_value(_mean_distance))

    def _size(self, num: int) -> int:
        if self._sizes is None or num <= max(self._sizes):
            return num
        return min(self._sizes, key=lambda size: (-num % size, -size))

    def pieces(self, *whole: Tensor) -> Iterable[tuple[Tensor, ...]]:
        """Yields pieces of tensors; the last is filled with zeros, or `NO_LABEL`."""
        size = self._size(len(whole[0]))
        for parts in zip(*(x.split(size) for x in whole), strict=True):
            yield tuple(_filled(part, size) for part in parts)

    def gradient(
        self, params: Params, images: Tensor, labels: Tensor
    ) -> tuple[Params, Tensor]:
        """Returns the gradient of the mean cross-entropy, and its value."""
        found = (self._gradient(params, *part) for part in self.pieces(images, labels))
        grads, values = zip(*found, strict=True)
        return mean(grads, len(images)), torch.stack(values).sum() / len(images)

    def pull(
        self, params: Params, images: Tensor, labels: Tensor, cotangent: Params
    ) -> tuple[Params, Tensor]:
        """Returns the derivative of <gradient of the mean loss, cotangent>.

        Reverse over reverse in one compiled function; forward over reverse is slower.

        Returns:
          Derivatives by parameters and by images.
        """
        num = len(images)
        parts = self.pieces(images, labels)
        found = [self._pull(params, *part, cotangent) for part in parts]
        by_params, by_images = zip(*found, strict=True)
        return mean(by_params, num), torch.cat(by_images)[:num] / num

    def form(self, params: Params, images: Tensor, labels: Tensor, v: Params) -> Tensor:
        """Returns v^T H v of the mean loss, forward over forward."""
        parts = self.pieces(images, labels)
        found = [self._form(params, *part, v) for part in parts]
        return torch.stack(found).sum() / len(images)

    def logits(self, params: Params, images: Tensor) -> Tensor:
        """Returns logits without gradients."""
        return self._all(self._logits, params, images)

    def features(self, params: Params, images: Tensor) -> Tensor:
        """Returns features without gradients."""
        return self._all(self._features, params, images)

    def _all(
        self, function: Callable[..., Tensor], params: Params, images: Tensor
    ) -> Tensor:
        with torch.no_grad():
            found = [function(params, part) for (part,) in self.pieces(images)]
        return torch.cat(found)[: len(images)]


def _filled(part: Tensor, size: int) -> Tensor:
    if len(part) == size:
        return part
    value = 0 if part.is_floating_point() else NO_LABEL
    rest = part.new_full((size - len(part), *part.shape[1:]), value)
    return channels_last(torch.cat([part, rest]))


def mean(each: Sequence[Params], num: int) -> Params:
    """Returns the sum of lists of tensors over `num`."""
    total = torch._foreach_div(each[0], num)
    for one in each[1:]:
        torch._foreach_add_(total, one, alpha=1 / num)
    return list(total)


def _updated(a: Params, b: Params, rate: float, keep: float = 1.0) -> Params:
    """Returns keep * a + rate * b."""
    found = torch._foreach_mul(a, keep) if keep != 1 else a
    return list(torch._foreach_add(found, b, alpha=rate))


def unroll(
    of: Derivatives,
    params: Params,
    images: Tensor,
    labels: Tensor,
    *,
    learning_rate: float,
    momentum: float,
    num_steps: int,
) -> tuple[Params, Callable[[Params], tuple[Tensor, Tensor]]]:
    """Trains by SGD with momentum on the distilled set, and keeps each step's parameters.

    Returns:
      The parameters at the end, and the pull-back: derivative by them -> derivatives by
      images and by learning rate.
    """
    kept = []
    velocity = [torch.zeros_like(p) for p in params]
    for _ in range(num_steps):
        grads, _ = of.gradient(params, images, labels)
        velocity = _updated(velocity, grads, 1.0, momentum)
        kept.append((params, velocity))
        params = _updated(params, velocity, -learning_rate)

    def pull_back(by_params: Params) -> tuple[Tensor, Tensor]:
        by_images = torch.zeros_like(images)
        by_rate = images.new_zeros(())
        by_velocity = [torch.zeros_like(p) for p in params]
        for before, velocity in reversed(kept):
            products = zip(by_params, velocity, strict=True)
            by_rate -= torch.stack([(a * b).sum() for a, b in products]).sum()
            by_velocity = _updated(by_velocity, by_params, -learning_rate)
            more, found = of.pull(before, images, labels, by_velocity)
            by_params = _updated(by_params, more, 1.0)
            by_velocity = list(torch._foreach_mul(by_velocity, momentum))
            by_images += found
        return by_images, by_rate

    return params, pull_back


def bptt(
    of: Derivatives,
    params: Params,
    images: Tensor,
    labels: Tensor,
    real: tuple[Tensor, Tensor],
    **settings: Any,
) -> tuple[Tensor, list[Tensor]]:
    """Returns what `steps.bptt` returns, and the derivative by the images."""
    trained, pull_back = unroll(of, params, images, labels, **settings)
    by_params, loss = of.gradient(trained, *real)
    return loss, [pull_back(by_params)[0]]


def tm(
    of: Derivatives,
    params: Params,
    images: Tensor,
    labels: Tensor,
    target: Params,
    log_lr: Tensor,
    *,
    num_steps: int,
) -> tuple[Tensor, list[Tensor]]:
    """Returns what `steps.tm` returns, and the derivatives by the images and log_lr."""
    rate = float(log_lr.exp())
    student, pull_back = unroll(
        of,
        params,
        images,
        labels,
        learning_rate=rate,
        momentum=0.0,
        num_steps=num_steps,
    )
    gap, start = (torch._foreach_sub(p, target) for p in (student, params))
    squares, scale = (
        torch.stack([x.square().sum() for x in each]).sum() for each in (gap, start)
    )
    by_images, by_rate = pull_back(list(torch._foreach_mul(gap, 2 / float(scale))))
    return squares / scale, [by_images, by_rate * rate]


def gm(
    of: Derivatives, params: Params, images: Sequence[Tensor], real: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Returns what `steps.gm` returns, and the derivative by the images."""
    found = []
    for label, (ours, theirs) in enumerate(zip(images, real, strict=True)):
        wanted, _ = of.gradient(params, theirs, labelled(theirs, label))
        found.append(of.gradient_distance(ours, params, labelled(ours, label), wanted))
    return _total(found)


def dm(
    of: Derivatives, params: Params, images: Sequence[Tensor], real: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Returns what `steps.dm` returns, and the derivative by the images."""
    found = []
    for ours, theirs in zip(images, real, strict=True):
        wanted = of.features(params, theirs).mean(0)
        found.append(of.mean_distance(ours, params, wanted))
    return _total(found)


def labelled(images: Tensor, label: int) -> Tensor:
    """Returns the label for each image."""
    return torch.full((len(images),), label, device=images.device)


def _total(found: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    by_images, values = zip(*found, strict=True)
    return torch.stack(values).sum(), [torch.cat(by_images)]


def train_on_batches(
    of: Derivatives,
    params: Params,
    images: Tensor,
    labels: Tensor,
    batches: Iterable[Tensor | slice],
    *,
    learning_rate: float,
    momentum: float,
) -> Params:
    """Returns the parameters after SGD on batches given by positions."""
    params = [p.clone() for p in params]
    velocity = [torch.zeros_like(p) for p in params]
    for where in batches:
        grads, _ = of.gradient(params, channels_last(images[where]), labels[where])
        torch._foreach_mul_(velocity, momentum)
        torch._foreach_add_(velocity, grads)
        torch._foreach_add_(params, velocity, alpha=-learning_rate)
    return params
