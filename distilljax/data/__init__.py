"""Image classification data: loading, dividing and preprocessing.

    data = load("cifar10", data_dir="...")
    train, held_out = hold_out(data.train, num_per_class=500, seed=0)
    transform = fit("zca", train.images)
    real = on_device(train, transform, data.num_classes)

Images are uint8 NHWC until a transform is applied, batch by batch, on the device.
"""

from distilljax.data.divided import Prepared, prepare
from distilljax.data.preprocess import (
    FITTERS,
    KINDS,
    PUBLISHED,
    ZCA,
    Identity,
    Normalise,
    NormedZCA,
    ScaledZCA,
    UncentredZCA,
    fit,
)
from distilljax.data.registered import register
from distilljax.data.sets import (
    Dataset,
    Split,
    dataset,
    fingerprint,
    hold_out,
    load,
    on_device,
    subset,
)
from distilljax.data.stored import array_names, from_arrays, to_arrays

__all__ = [
    "FITTERS",
    "KINDS",
    "PUBLISHED",
    "ZCA",
    "Dataset",
    "Identity",
    "Normalise",
    "NormedZCA",
    "Prepared",
    "ScaledZCA",
    "Split",
    "UncentredZCA",
    "array_names",
    "dataset",
    "fingerprint",
    "fit",
    "from_arrays",
    "hold_out",
    "load",
    "on_device",
    "prepare",
    "register",
    "subset",
    "to_arrays",
]
