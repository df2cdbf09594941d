"""Work shared by the devices of a mesh gives the numbers of one device.

python -m tests.devices.meshes CASE... runs on 4 devices; prints a line a failure.
"""

import pathlib
import sys
import tempfile
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distilljax import devices, io, loop, platforms
from distilljax.analysis import leave_one_out, pools
from distilljax.core import inner, losses
from distilljax.curvature import estimators, hessian, ntk
from distilljax.methods import bptt, dm, gm, kernel, tm
from distilljax.probes import PROBES, Point
from distilljax.training import evaluation
from distilljax.types import Model
from tests.devices.cases import CONVNET, LOSS, MLP, PROTOCOL, batch_of, given
from tests.devices.contract import apart, at, numbers

CASES: dict[str, Any] = {}


def case(function):
    CASES[function.__name__] = function
    return function


@case
def networks(x, mesh):
    keys = jax.random.split(x.key, 5)
    on = evaluation.fresh_accuracy(keys, MLP, x.real, x.real, PROTOCOL, mesh=mesh)
    sets = jax.tree.map(lambda a: jnp.stack([a] * 5), batch_of(x))
    stacked = evaluation.fresh_accuracy(
        keys, MLP, sets, x.real, PROTOCOL, stacked=True, together=2, mesh=mesh
    )
    return on, stacked


@case
def left_out(x, mesh):
    keys = jax.random.split(x.key, 1)
    args = keys, MLP, batch_of(x), x.real, PROTOCOL
    return leave_one_out.leave_one_out(*args, mesh=mesh).without.losses


@case
def pools_of_networks(x, mesh):
    rule = optax.sgd(0.1)
    keys, where = jax.random.split(x.key, 5), jnp.arange(60).reshape(5, 12) % 24
    few = pools.subset_trained(
        keys, MLP, x.real, where, jnp.array([3, 12, 5, 9, 7]), x.real,
        epochs=2, batch=5, optimizer=rule, mesh=mesh,
    )  # fmt: skip
    stopped = pools.early_stopped(
        keys, MLP, x.real, x.real, iterations=2, every=1, batch=8, optimizer=rule, mesh=mesh
    )
    return few, stopped


def step_of(method, x, source):
    state = method.init(x.key, x.distilled)
    return method.step(x.key, state, source)


@case
def bptt_step(x, mesh):
    config = bptt.Config(unroll=2, real_batch=9, inner_augment="flip")
    return step_of(bptt.make(config, MLP, mesh=mesh), x, x.real)


@case
def bptt_of_few_images(x, mesh):
    """Five images: of four devices the last has none, of three the last has one."""
    config = bptt.Config(unroll=3, inner_batch=5, real_batch=8)
    few = x._replace(distilled=jax.tree.map(lambda a: a[:5] if a.ndim else a, x.distilled))
    return step_of(bptt.make(config, MLP, mesh=mesh), few, x.real)


@case
def bptt_of_adapted_windows(x, mesh):
    """Windows follow the norms of gradients of the whole batch."""
    config = bptt.Config(unroll=4, window=2, adapt=1, inner_batch=4, real_batch=8)
    return step_of(bptt.make(config, MLP, mesh=mesh), x, x.real)


@case
def kernel_step(x, mesh):
    config = kernel.Config(real_batch=8, pool=2, ridge=0.1)
    return step_of(kernel.make(config, MLP, mesh=mesh), x, x.real)


@case
def gm_step(x, mesh):
    config = gm.Config(real_batch=4, augment="flip_crop", outer_loop=2)
    return step_of(gm.make(config, MLP, mesh=mesh), x, x.real)


@case
def gm_step_as_on_a_gpu(x, mesh):
    """Classes vmapped, not one after the other; moments of the norm are a branch."""
    with platforms.target("gpu"):
        method = gm.make(gm.Config(real_batch=4, augment="flip"), CONVNET, mesh=mesh)
        return step_of(method, x, x.real)


@case
def dm_step(x, mesh):
    return step_of(dm.make(dm.Config(real_batch=4), MLP, mesh=mesh), x, x.real)


@case
def tm_step(x, mesh):
    config = tm.Config(
        student_steps=2, expert_epochs=1, max_start=0, segments=4, augment=""
    )
    return step_of(tm.make(config, MLP, mesh=mesh), x, x.experts)


@case
def tm_of_one_segment(x, mesh):
    config = tm.Config(student_steps=2, expert_epochs=1, max_start=0, student_batch=5)
    return step_of(tm.make(config, MLP, mesh=mesh), x, x.experts)


@case
def curvature(x, mesh):
    params, batch = MLP.init(x.key), batch_of(x)
    v = estimators.probe(x.key, params)
    probes = {"num_probes": 4, "mesh": mesh}
    return (
        hessian.hvp(LOSS, params, batch, mesh=mesh)(v),
        hessian.ggn(MLP.apply, params, batch, chunk=1, mesh=mesh)(v),
        hessian.trace(LOSS, params, batch, x.key, chunk=2, **probes),
        hessian.batch_trace(LOSS, params, batch, x.key, batch=4, **probes),
    )


@case
def kernels(x, mesh):
    params, images = MLP.init(x.key), x.distilled.images
    return [
        ntk.empirical_ntk(MLP.apply, params, images, other, form=form, mesh=mesh)
        for form in ("full", "trace", "classes")
        for other in (None, images[:3])
    ]


@case
def probes(x, mesh):
    """Each at two points, on a set and on a part of the real images."""
    found = []
    for name, settings in {
        "accuracy": {"chunk": 2},
        "hessian_trace": {"num_probes": 5, "batch": 4},
        "hessian_eigenvalues": {"num_iters": 8, "chunk": 3},
        "hessian_spectrum": {"num_iters": 3, "num_probes": 2},
        "ntk": {"images": 8, "reference": 12},
    }.items():
        probe = PROBES[name].make(PROBES[name].Config(**settings), MLP, mesh)
        for source in (batch_of(x), x.real):
            given = probe.select(source, x.real)
            first = Point(MLP.init(x.key), jnp.float32(0))
            state = probe.init(x.key, first, *given)
            state, _ = probe.measure(x.key, state, first, *given)
            then = Point(MLP.init(jax.random.fold_in(x.key, 1)), jnp.float32(5))
            found.append(probe.measure(x.key, state, then, *given)[1])
    return found


def resumed(x, meshes):
    """Returns a run of six outer steps, two on each mesh, from checkpoint to checkpoint."""

    def score(key, distilled, real):
        return losses.accuracy(MLP.apply(MLP.init(key), distilled.images), jnp.arange(8))

    with tempfile.TemporaryDirectory() as folder:
        for i, mesh in enumerate(meshes):
            checkpoints = io.Checkpoints(pathlib.Path(folder))
            method = gm.make(gm.Config(real_batch=4, outer_loop=4), MLP, mesh=mesh)
            last = (i + 1) * 6 // len(meshes)
            found = loop.run(
                method, x.distilled, x.real, x.key, num_steps=last, score=score,
                score_source=x.real, score_every=2, checkpoints=checkpoints, mesh=mesh,
            )  # fmt: skip
            checkpoints.close()
    return found.last, jnp.float32(found.best_score)


def gap(a, b):
    return max(apart(*pair) for pair in zip(numbers(a), numbers(b), strict=True))


# Outer steps that share images: settings, source, and the most images of each of 4 devices.
SHARED: dict[str, Any] = {
    "bptt": (bptt, bptt.Config(unroll=2, real_batch=24), "real", 24 // 4),
    "tm": (tm, tm.Config(student_steps=2, expert_epochs=1, max_start=0), "experts", 8 // 4),
    "kernel": (kernel, kernel.Config(real_batch=24, max_age=0, flips=False), "real", 8),
}


def most_images(name, x):
    """Returns the number of images at once of which a device computes the network."""
    module, config, source, _ = SHARED[name]
    mesh, seen = devices.mesh(4), []

    def watched(function):
        def watch(params, images):
            seen.append(len(images))
            return function(params, images)

        return watch

    model = Model(MLP.init, watched(MLP.features), watched(MLP.apply))
    method = module.make(config, model, mesh=mesh)
    state = method.init(x.key, x.distilled)
    seen.clear()  # of the checks
    with mock.patch.object(inner, "cache_chunk", return_value=None):
        step = devices.jit(method.step, mesh)
        step.lower(*devices.everywhere((x.key, state, getattr(x, source)), mesh))
    return max(seen)


def main():
    x = at(given(1), 0)
    failures = []
    chosen = sys.argv[1:] or [*CASES, *SHARED, "resumed"]
    for name in [name for name in chosen if name in SHARED]:
        if (most := most_images(name, x)) != SHARED[name][-1]:
            failures.append(f"{name}: each of 4 devices computes {most} images at once")
    for name in [name for name in chosen if name in CASES]:
        began = time.process_time()
        alone = jax.jit(lambda x, f=CASES[name]: f(x, None))(x)
        for num in (3, 4):
            mesh = devices.mesh(num)
            program = devices.jit(lambda x, f=CASES[name], m=mesh: f(x, m), mesh)
            shared = program(devices.everywhere(x, mesh))
            if (far := gap(shared, alone)) > 1:
                failures.append(f"{name} on {num} devices: {far:.3g} tolerances apart")
        print(name, time.process_time() - began, file=sys.stderr, flush=True)
    if "resumed" in chosen:
        four = devices.mesh(4)
        if (far := gap(resumed(x, [four, None, four]), resumed(x, [None]))) > 1:
            failures.append(f"resumed on 4, 1 and 4 devices: {far:.3g} tolerances apart")
    print("\n".join(failures) or "all agree")
    sys.exit(bool(failures))


if __name__ == "__main__":
    assert jax.device_count() == 4, np.array(jax.devices())
    main()
