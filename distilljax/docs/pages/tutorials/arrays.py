"""Distil your own arrays.

Images and labels in memory become a set of a few images, on which a fresh network trains in
a few steps.
"""

# %% [markdown]
# ## The data
#
# Any `u8[n, h, w, c]` in 0..255 with one or three channels, or `u8[n, h, w]`, with labels
# 0..k-1. Here they are drawn: a disc, a square or a cross somewhere in a noisy image.

# %%
import matplotlib.pyplot as plt
import numpy as np

import distilljax
from distilljax.methods import bptt
from distilljax.models import mlp

rng = np.random.default_rng(0)
NAMES = ("disc", "square", "cross")


def draw(label):
    y, x = np.mgrid[:16, :16] - rng.integers(6, 10, 2)[:, None, None]
    inside = {
        0: x**2 + y**2 <= 12,
        1: np.maximum(abs(x), abs(y)) <= 3,
        2: (np.minimum(abs(x), abs(y)) <= 1) & (np.maximum(abs(x), abs(y)) <= 4),
    }[label]
    return np.clip(90 + 70 * inside + rng.normal(0, 60, inside.shape), 0, 255)


labels = np.arange(600) % 3
images = np.stack([draw(label) for label in labels]).astype(np.uint8)

# %% [markdown]
# ## The distillation
#
# [`dataset`][distilljax.data.sets.dataset] checks the arrays: shapes, dtypes, labels,
# classes without images. [`distil`][distilljax.distillation.run.distil] holds out some
# training images, by whose accuracy it chooses the best set; the test set is not looked at.
# Each method and each network has a `Config`, where an unknown option or a value out of
# range is refused.

# %%
data = distilljax.dataset(
    images[:450], labels[:450], images[450:], labels[450:], class_names=NAMES
)
made = distilljax.distil(
    data,
    bptt.Config(unroll=8, real_batch=150, image_lr=0.1),
    mlp.Config(width=32, depth=1),
    steps=100,
    score_every=50,
    key=0,
)

# %% [markdown]
# ## What it is worth
#
# Fresh networks are trained on the set and on as many random real images, and tested on the
# test set, which was not used before.

# %%
comparison = made.compare(networks=3, scores=False, whole_epochs=0)
print(comparison)
made.save("shapes.npz")

distilled = comparison.accuracy["distilled"]["mean"]
random = comparison.accuracy["random"]["mean"]
assert distilled > random

# %% [markdown]
# `distilljax.load("shapes.npz")` reads the set with its preprocessing, class names,
# settings and protocol; `distilljax.io.foreign.to_torch` gives it as PyTorch tensors. With
# `checkpoints="runs/shapes"` in `distil`, the same call resumes an interrupted run.

# %%
figure, axes = plt.subplots(2, 3, figsize=(5, 3.6), layout="constrained")
for j, name in enumerate(NAMES):
    axes[0, j].imshow(data.train.images[labels[:450] == j][0, ..., 0], cmap="gray")
    axes[1, j].imshow(made.pixels[j, ..., 0], cmap="gray", vmin=0, vmax=1)
    axes[0, j].set_title(name)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel(f"real ({random:.0%})")
axes[1, 0].set_ylabel(f"distilled ({distilled:.0%})")
figure.savefig("arrays.png", dpi=120)

# %% [markdown]
# ![Above a real image of each class, below the distilled one; the test accuracy of networks
# trained on three of them at the left](arrays.png)
