"""Creates the embedded subset of Fashion-MNIST from the set prepared by TFDS.

    python -m distilljax.data.embedded.make --data_dir=DIR [--out=FILE]

The images of each class and split with the smallest SHA-256 of seed and pixels are
selected, so that the selection does not depend on the order of the records. Images that
occur in both splits are excluded from both.
"""

import argparse
import hashlib
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from distilljax.data.sets import Split, fingerprint, load

SEED = 0
TRAIN_PER_CLASS = 800
TEST_PER_CLASS = 200
CLASS_NAMES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
# `source_digest` of the complete splits.
SOURCE_DIGESTS = {
    "train": "fb88a2f5c1b590c907f860b47803d006e4fa7b276cdb551799af9d443accdff7",
    "test": "0b381379398a0943a88bf3864ff3f5177903dcf178030b4b74c495294b38fa7c",
}


def source_digest(split: Split) -> str:
    """Returns the hex SHA-256 of the sorted SHA-256 of each image's pixels and label.

    >>> from distilljax.data import Split
    >>> split = Split(np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.uint8))
    >>> make.source_digest(split)[:8]
    '7901af93'
    """
    digests = sorted(
        hashlib.sha256(image.tobytes() + bytes([int(label)])).digest()
        for image, label in zip(*split, strict=True)
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _keys(split: Split) -> list[bytes]:
    return [hashlib.sha256(bytes([SEED]) + image.tobytes()).digest() for image in split[0]]


def choose(split: Split, num_per_class: int, other: Split) -> Split:
    """Selects images of each class, ordered by class, then by hash.

    >>> from distilljax.data import Split
    >>> images = np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1)
    >>> split, other = Split(images, np.arange(10)), Split(images[:1], np.arange(1))
    >>> make.choose(split, 1, other).labels.tolist()
    [1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    keys, excluded = _keys(split), set(_keys(other))
    chosen: list[int] = []
    for label in range(len(CLASS_NAMES)):
        candidates = [
            int(i) for i in np.flatnonzero(split.labels == label) if keys[i] not in excluded
        ]
        chosen += sorted(candidates, key=keys.__getitem__)[:num_per_class]
    return Split(split.images[chosen], split.labels[chosen])


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file that `numpy.load` reads, by LZMA: a seventh smaller than zlib.

    >>> import pathlib
    >>> make.write(pathlib.Path("small.npz"), {"labels": np.arange(3)})
    >>> np.load("small.npz")["labels"].tolist()
    [0, 1, 2]
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # of 1980: the same bytes every time
            entry.compress_type = zipfile.ZIP_LZMA
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def main() -> None:
    """Writes the file and prints the digests that the README and `load` quote.

    >>> make.main()  # doctest: +SKIP
    """
    parser = argparse.ArgumentParser(description="Make the embedded data set.")
    parser.add_argument("--data_dir", required=True, help="where TFDS has fashion_mnist")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path(__file__).with_name("fashion_mnist_subset.npz"),
        help="the file to write",
    )
    args = parser.parse_args()
    data = load("fashion_mnist", args.data_dir)
    for name, split in (("train", data.train), ("test", data.test)):
        digest = source_digest(split)
        print(f"source {name}: {digest}")
        if digest != SOURCE_DIGESTS[name]:
            parser.error(f"{name} is not Fashion-MNIST's: digest {digest}")
    train = choose(data.train, TRAIN_PER_CLASS, data.test)
    test = choose(data.test, TEST_PER_CLASS, data.train)
    arrays = {
        "train_images": train.images,
        "train_labels": train.labels.astype(np.uint8),
        "test_images": test.images,
        "test_labels": test.labels.astype(np.uint8),
        "class_names": np.array(CLASS_NAMES),
    }
    write(args.out, arrays)
    print(f"file: {hashlib.sha256(args.out.read_bytes()).hexdigest()}")
    print(f"arrays: {fingerprint(train, test)}")


if __name__ == "__main__":
    main()
