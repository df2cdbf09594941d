"""Ground of the tests of foreign sets: small data, files as other programs write them."""

import zipfile

import numpy as np

from distilljax import data

SHAPE, CLASSES, IPC = (8, 10, 3), 3, 2
NUM = CLASSES * IPC


def load_small(path):
    """A data set of 3 classes, ant, bee and cat, 60 images of 8 x 10 x 3."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(20, 200, (90, 4, 5, 3)).repeat(2, 1).repeat(2, 2)
    images = (coarse + rng.integers(0, 50, coarse.shape)).astype(np.uint8)
    labels = np.arange(90) % CLASSES
    np.savez(
        path,
        train_images=images[:60],
        train_labels=labels[:60],
        test_images=images[60:],
        test_labels=labels[60:],
        class_names=np.array(["ant", "bee", "cat"]),
    )
    return data.load(str(path))


def images_of(loaded, kind, seed=1):
    """f32[6, 8, 10, 3]: real images, two of each class, preprocessed, with noise."""
    transform = data.fit(kind, loaded.train.images)
    chosen = np.asarray(transform(data.subset(loaded.train, IPC, seed).images))
    noise = np.random.default_rng(seed).normal(size=chosen.shape)
    return (chosen + 0.1 * chosen.std() * noise).astype(np.float32)


def first(images):
    """[n, h, w, c] -> [n, c, h, w]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value):
    return b"J" + value.to_bytes(4, "little", signed=True)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(storage, key, count, offset, size, stride, rebuild="_rebuild_tensor_v2"):
    """The opcodes by which torch.save pickles a tensor, written out by hand."""
    where = (
        b"("
        + text("storage")
        + f"ctorch\n{storage}\n".encode()
        + text(key)
        + text("cuda:0")
        + number(count)
        + b"tQ"
    )
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = where + number(offset) + numbers(size) + numbers(stride) + b"\x89" + hooks
    return f"ctorch._utils\n{rebuild}\n".encode() + b"(" + arguments + b"tR"


def contiguous(shape):
    return [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]


def write_pt(path, stream, storages, **more):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + stream + b".")
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
        for name, value in more.items():
            archive.writestr(f"archive/{name}", value)


def write_dc(path, *snapshots):
    """A file as DC's authors save it: {'data': [[images, labels], ...]}."""
    stream, storages = b"}(" + text("data") + b"]", {}
    for number_, (images, labels) in enumerate(snapshots):
        pair = b""
        for what, array in (("x", images), ("y", labels)):
            key = f"{number_}{what}"
            storages[key] = array
            kind = {"f4": "FloatStorage", "i8": "LongStorage"}[array.dtype.str[1:]]
            strides = contiguous(array.shape)
            pair += tensor(kind, key, array.size, 0, array.shape, strides)
        stream += b"](" + pair + b"ea"
    write_pt(path, stream + text("accs_all_exps") + b"}u", storages)
