"""Write a method.

A method is a pair of pure functions, and most are an outer loss alone. This one matches not
only the class means of the features of a random network, as
[`dm`][distilljax.methods.dm] does, but their standard deviations as well:

    sum_j |mean f(real_j) - mean f(S_j)|^2 + |std f(real_j) - std f(S_j)|^2
"""

# %% [markdown]
# ## The outer loss
#
# It takes the distilled set, a key, a state of the method (`aux`, none here) and the real
# set, and returns the loss and the state. It is differentiated with respect to the fields
# that have a rule in [`per_field`][distilljax.core.outer.per_field]. All randomness comes
# from the key, so that a resumed run gives the same set.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import distilljax
from distilljax.core import outer, sampling
from distilljax.models import mlp


def moments(features):
    return jnp.concatenate([features.mean(axis=1), features.std(axis=1)], axis=-1)


def make(model):
    def outer_loss(distilled, key, aux, real):
        network_key, batch_key = jax.random.split(key)
        params = model.init(network_key)
        num_classes = distilled.label_logits.shape[1]

        def by_class(images):
            features = model.features(params, images)
            return moments(features.reshape(num_classes, -1, features.shape[-1]))

        drawn = sampling.class_batch(batch_key, real, 32)  # f32[k, 32, h, w, c]
        theirs = by_class(drawn.reshape(-1, *drawn.shape[2:]))
        ours = by_class(distilled.images)  # class-ordered
        return jnp.square(ours - theirs).sum(), aux

    return outer.from_outer_loss(outer_loss, outer.per_field(images=optax.adam(0.1)))


# %% [markdown]
# ## It runs as any other
#
# `distil` takes it in place of the name of a built-in method; it scores, checkpoints and
# resumes it. The step itself needs a key and no other input from the host: it goes into
# your own `jit`, `scan` over steps and `vmap` over sets.

# %%
data = distilljax.data.load("embedded")  # 10,000 images of Fashion-MNIST
network = mlp.make(mlp.Config(width=64), data.image_shape, data.num_classes)
made = distilljax.distil(
    data, make(network), network, ipc=2, steps=100, score_every=100, score_networks=1
)
losses = jnp.array([record["loss"] for record in made.history])
print(f"outer loss {losses[:10].mean():.2f} -> {losses[-10:].mean():.2f}")
assert losses[-10:].mean() < 0.9 * losses[:10].mean()

# %% [markdown]
# To give it flags and the contract tests, put it with a `Config` into a file in
# `distilljax/methods`, and add a line to `METHODS`.

# %%
figure = plt.figure(figsize=(8, 2.2), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1, 1.9))
axis = left.subplots()
axis.semilogy(losses)
axis.set(xlabel="outer step", ylabel="outer loss")
for axis, image in zip(right.subplots(2, 10).T.flat, made.pixels, strict=True):
    axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
    axis.axis("off")
figure.savefig("method.png", dpi=120)

# %% [markdown]
# ![The outer loss falls; the set, two images a class, each class a column](method.png)
