"""Evaluate someone's published set.

[`io.foreign`][distilljax.io.foreign] reads sets that other programs wrote: DC and DSA, MTT
and its successors, RaT-BPTT, RFAD, RCIG, folders of PNG files, Hugging Face. Nothing in
them is executed, and nothing is guessed: you are asked for what a file does not say.
"""

# %% [markdown]
# ## A file from elsewhere
#
# In place of a download this writes one, in the layout of RFAD and KIP: `images` with
# channels first, as the network sees them, and `labels`. For each class it holds the image
# of Fashion-MNIST that is closest to the mean of the class, normalised.

# %%
import matplotlib.pyplot as plt
import numpy as np

import distilljax
from distilljax.io import foreign
from distilljax.models import mlp

data = distilljax.data.load("embedded")
pixels = data.train.images[..., 0] / 255.0


def typical(images):
    return images[np.square(images - images.mean(0)).sum((1, 2)).argmin()]


chosen = np.stack([typical(pixels[data.train.labels == j]) for j in range(10)])
images = (chosen - pixels.mean()) / pixels.std()
np.savez("theirs.npz", images=images[:, None].astype(np.float32), labels=np.arange(10))

# %% [markdown]
# ## Reading
#
# Without the preprocessing and the protocol of its authors a set cannot be judged.

# %%
try:
    foreign.read("theirs.npz", data)
except distilljax.InputError as error:
    print(error)
else:
    raise AssertionError("a set was read without its preprocessing")

theirs = foreign.read("theirs.npz", data, preprocess="normalise", protocol="study")

# %% [markdown]
# ## What it is worth here
#
# Fresh networks, trained on the set by the protocol, beside as many random real images.

# %%
comparison = distilljax.compare(
    theirs,
    data,
    mlp.Config(width=32, depth=1),
    networks=3,
    scores=False,
)
print(comparison)
found = {name: row["values"] for name, row in comparison.accuracy.items()}
assert np.mean(found["distilled"]) > np.mean(found["random"])

# %%
figure = plt.figure(figsize=(8, 2.6), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1.4, 1))
shown = np.asarray(theirs.transform.inverse(theirs.distilled.images))
for axis, image in zip(left.subplots(2, 5).flat, shown, strict=True):
    axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
    axis.axis("off")
axis = right.subplots()
for i, values in enumerate(found.values()):
    axis.plot(values, [i] * len(values), "o")
axis.set(yticks=range(len(found)), yticklabels=found, xlabel="test accuracy")
axis.margins(y=0.3)
figure.savefig("published_set.png", dpi=120)

# %% [markdown]
# ![The ten images of the file, and the test accuracies of three networks trained on them,
# on as many random real images](published_set.png)
