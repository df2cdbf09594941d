"""Probe a training run of your own network.

How sharp is the loss at a network, what is the spectrum of its Hessian, how far has its
tangent kernel moved? [`curvature`][distilljax.curvature] needs only your
`loss_fn(params, batch)` and `apply(params, x)`; here they come from a flax.nnx network.
"""

# %% [markdown]
# ## A network of your own
#
# `nnx.split` gives its parameters as a pytree, `nnx.merge` puts them back.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree

from distilljax.core import inner
from distilljax.curvature import estimators, hessian, kernels, ntk


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, 16, rngs=rngs)
        self.out = nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


graph, params = nnx.split(Network(nnx.Rngs(0)))


def apply(params, x):
    return nnx.merge(graph, params)(x)


def loss_fn(params, batch):
    x, labels = batch
    logits = apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


rng = np.random.default_rng(0)
angle = rng.uniform(0, 2 * np.pi, 200)
radius = np.where(np.arange(200) % 2, 1.0, 2.0) + rng.normal(0, 0.15, 200)
x = jnp.asarray(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), jnp.float32)
data = x, jnp.arange(200) % 2

# %% [markdown]
# ## The run, with a probe at some points
#
# [`unroll`][distilljax.core.inner.unroll] takes many steps at once; between them three
# quantities are measured. Estimates come with their standard error. The same key at each
# point gives the same random probes, and so a smooth curve.

# %%
optimizer = optax.sgd(0.3, momentum=0.9)
key = jax.random.key(0)


@jax.jit
def advance(state):
    return inner.unroll(loss_fn, optimizer, lambda _: data, state, jnp.arange(20))


@jax.jit
def measure(params):
    matvec = hessian.hvp(loss_fn, params, data)
    trace = hessian.trace(loss_fn, params, data, key, num_probes=50)
    density = estimators.spectral_density(matvec, key, params, num_probes=4, num_iters=20)
    kernel = ntk.empirical_ntk(apply, params, x[:40], form="trace")
    return loss_fn(params, data), trace, density, kernel


state = inner.init(params, optimizer)
points = [measure(state.params)]
for _ in range(8):
    state, _ = advance(state)
    points.append(measure(state.params))
losses, traces, densities, found = zip(*points, strict=True)
distances = [kernels.kernel_distance(found[0], kernel) for kernel in found]

# %% [markdown]
# The trace is checked against the dense Hessian, which a network of 82 parameters allows.

# %%
flat, restore = ravel_pytree(state.params)
dense = jax.hessian(lambda v: loss_fn(restore(v), data))(flat)
assert abs(traces[-1].value - jnp.trace(dense)) < 4 * traces[-1].standard_error
assert losses[-1] < 0.5 * losses[0]
assert distances[-1] > 0.1

# %%
steps = 20 * np.arange(len(points))
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
left.errorbar(steps, [t.value for t in traces], [t.standard_error for t in traces])
left.set(xlabel="step", ylabel="trace of the Hessian")
grid = jnp.linspace(-0.5, 2.5, 300)
for name, density in (("start", densities[0]), ("end", densities[-1])):
    curve = estimators.smoothed_density(density, grid, 0.05)
    middle.semilogy(grid, curve.value, label=name)
middle.set(xlabel="eigenvalue of the Hessian", ylabel="density", ylim=(1e-3, 20))
middle.legend()
right.plot(steps, distances)
right.set(xlabel="step", ylabel="kernel distance to the start")
figure.savefig("probe.png", dpi=120)

# %% [markdown]
# ![The trace of the Hessian along the run with its standard error, the spectral density at
# its start and end, the distance of the tangent kernel from its start](probe.png)
#
# [`probes`][distilljax.probes] holds these and more for image classifiers, as pairs of pure
# functions that remember the first and the previous point.
