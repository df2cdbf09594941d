"""Exports the programs of commit 526ed50, the first to be compiled for accelerators.

    git worktree add ../before 526ed50
    cd ../before && PYTHONPATH=. python PATH/benchmarks/ahead/base.py FOLDER HOST

Runs with the library of that commit, which has no `mesh=`: programs of one device. The
library asked `jax.default_backend()` for the platform when a program was traced; HOST is
`cpu`, as where there is no accelerator, or `device`, as where there is one. Sizes and
settings are those of `programs`. `python -m benchmarks.ahead --exported=FOLDER` compiles
what is found in the folder, in files PROGRAM.PLATFORM.

It imports nothing of this project's present.
"""

import functools
import importlib
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

K, IPC, SHAPE, FEATURES = 10, 10, (32, 32, 3), 32 * 32 * 3
SEEDS, NETWORKS, IMAGES, PROBES, REAL, TEST = 5, 101, 100, 100, 50_000, 10_000

BPTT: dict[str, Any] = {"unroll": 150, "inner_lr": 0.01, "real_batch": 640, "outer": "sgd"}
RAT: dict[str, Any] = {
    "unroll": 200, "window": 60, "random_window": True, "inner": "adam",
    "inner_lr": 0.001, "real_batch": 5000, "augment": "flip_rotate", "image_lr": 0.001,
    "clip_running": True,
}  # fmt: skip
TM: dict[str, Any] = {
    "student_steps": 30, "max_start": 19, "inner_lr": 0.001, "lr_lr": 1e-5 / 0.001**2,
}  # fmt: skip


def old(name: str) -> Any:
    """Returns a module of the library, whose types are not those of today."""
    return importlib.import_module(f"distilljax.{name}")


def f32(*shape: int) -> Any:
    """Returns the shape of a float32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def i32(*shape: int) -> Any:
    """Returns the shape of an int32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def keys(*shape: int) -> Any:
    """Returns the shape of keys."""
    one = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(shape, one.dtype)


def network() -> Any:
    """Returns the ConvNet of the paper."""
    convnet = old("models.convnet")
    return convnet.make(convnet.Config(width=128), SHAPE, K)


def real_set(num: int, transform: Any = None) -> Any:
    """Returns the shapes of a real set."""
    pixels = jax.ShapeDtypeStruct((num, *SHAPE), jnp.uint8)
    transform = transform or old("data.preprocess").Normalise(f32(3), f32(3))
    return old("types").RealSet(pixels, i32(num), i32(K, num // K), i32(K), transform)


def batch(num: int) -> Any:
    """Returns the shapes of images with distributions of classes."""
    return old("types").Batch(f32(num, *SHAPE), f32(num, K))


def outer_step(name: str) -> tuple[Any, tuple[Any, ...]]:
    """Returns an outer step and the shapes of its arguments."""
    preprocess, augment = old("data.preprocess"), old("core.augment")
    whiten = f32(FEATURES, FEATURES), f32(FEATURES, FEATURES)
    zca = preprocess.ZCA(f32(FEATURES), *whiten)
    normed = preprocess.NormedZCA(*whiten, f32(), f32())
    long: dict[str, Any] = {"outer_loop": 10, "inner_loop": 50}
    method, settings, transform = {
        "bptt": ("bptt", BPTT, None),
        "rat": ("bptt", RAT, normed),
        "gm": ("gm", long, None),
        "gm_dsa": ("gm", long | {"augment": augment.DSA, "network_momentum": 0.0}, None),
        "dm": ("dm", {}, None),
        "tm": ("tm", TM, zca),
    }[name]
    module, model = old(f"methods.{method}"), network()
    made = module.make(module.Config(**settings), model)
    source = real_set(REAL, transform)
    if method == "tm":
        expert = old("core.expert")
        source = expert.Trajectories(f32(1, 23, expert.num_params(model)), i32())
    num = K * IPC
    distilled = old("types").DistilledSet(f32(num, *SHAPE), f32(num, K), f32())
    state = jax.eval_shape(made.init, keys(), distilled)
    return made.step, (keys(), state, source)


def others() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Returns trainings and measurements with the shapes of their arguments."""
    evaluate, loo = old("core.evaluate"), old("core.leave_one_out")
    hessian, ntk, losses = (
        old(n) for n in ("curvature.hessian", "curvature.ntk", "core.losses")
    )
    model, protocol, num = network(), evaluate.Protocol(steps=300), K * IPC
    params, test = jax.eval_shape(model.init, keys()), real_set(TEST)
    loss_fn = losses.cross_entropy(model.apply)
    return {
        "train": (
            lambda key, batch: evaluate.train(key, model, batch, protocol),
            (keys(), batch(num)),
        ),
        "evaluate": (
            lambda k, batch, test: evaluate.fresh_accuracy(k, model, batch, test, protocol),
            (keys(SEEDS), batch(num), test),
        ),
        "loo": (
            lambda k, out, batch, test: loo.retrain(k, out, model, batch, test, protocol),
            (keys(NETWORKS), i32(NETWORKS), batch(num), test),
        ),
        "trace": (
            lambda p, batch, key: hessian.trace(loss_fn, p, batch, key, num_probes=PROBES),
            (params, batch(IMAGES), keys()),
        ),
        "ntk": (
            lambda p, images: ntk.empirical_ntk(model.apply, p, images),
            (params, f32(IMAGES, *SHAPE)),
        ),
    }


def exported(function: Any, args: tuple[Any, ...], platform: str) -> bytes:
    """Returns the program, a function of the arrays of its arguments, keys as u32[2]."""
    leaves, tree = jax.tree.flatten(args)
    are_keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    flat = [
        jax.ShapeDtypeStruct((*leaf.shape, 2), jnp.uint32) if is_key else leaf
        for leaf, is_key in zip(leaves, are_keys, strict=True)
    ]

    def program(*given: Any) -> list[Any]:
        values = [
            jax.random.wrap_key_data(value) if is_key else value
            for value, is_key in zip(given, are_keys, strict=True)
        ]
        return jax.tree.leaves(function(*jax.tree.unflatten(tree, values)))

    made = export.export(jax.jit(program), platforms=[platform])(*flat)
    return bytes(made.serialize())


def main() -> None:
    """Writes every program for every platform."""
    folder, host = pathlib.Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    names = ("bptt", "rat", "gm", "gm_dsa", "dm", "tm")
    for platform, seen in (("cuda", "gpu"), ("tpu", "tpu")):
        if host == "device":
            jax.default_backend = functools.partial(str, seen)
        found = {name: outer_step(name) for name in names} | others()
        for name, (function, args) in found.items():
            (folder / f"{name}.{platform}").write_bytes(exported(function, args, platform))
            print(name, platform, flush=True)


if __name__ == "__main__":
    main()
