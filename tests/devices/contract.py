"""Compares every case alone, under vmap, with sharded arguments and under shard_map.

    python -m tests.devices.contract --ways=one_key,one_set CASE...

prints a line for each failure; runs on 4 devices. Without names all that there are.
"""

import sys
import time
import traceback

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.devices.cases import CASES, Given, given

NUM = 4
AXIS = "device"
WAYS = ("one_key", "one_set", "vmap", "sharded", "checked", "unchecked")


def numbers(tree):
    """Returns the arrays of a result on the host, keys as their numbers."""
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
                   else x)
        for x in jax.tree.leaves(tree)
    ]  # fmt: skip


def at(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def mixed(function, mesh, over, check):
    """Runs under shard_map; `over` says of each field whether it differs by device."""
    specs = Given(*(P(AXIS) if sharded else P() for sharded in over))

    def one(x):
        own = Given(*(at(y, 0) if s else y for y, s in zip(x, over, strict=True)))
        found = function(own)
        if check:  # what varies over no device cannot be stacked along them
            found = jax.tree.map(
                lambda y: y if AXIS in jax.typeof(y).manual_axis_type.varying
                else jax.lax.pcast(y, AXIS, to="varying"),
                found,
            )  # fmt: skip
        return jax.tree.map(lambda y: y[None], found)

    return jax.shard_map(
        one, mesh=mesh, in_specs=(specs,), out_specs=P(AXIS), check_vma=check
    )


def shares(mesh, tree):
    """Shards every leading axis that the devices divide, and copies the rest."""

    def put(x):
        fits = x.ndim and x.shape[0] % NUM == 0
        return jax.device_put(x, NamedSharding(mesh, P(AXIS) if fits else P()))

    return jax.tree.map(put, tree)


def ways(function, everything, mesh):
    """Returns name -> how to run, which gives results and the inputs of each device."""
    first = at(everything, 0)
    own = [at(everything, i) for i in range(NUM)]

    def shard_map(check):
        return jax.jit(mixed(function, mesh, (True,) * 4, check))(everything), own

    def one_key():  # the same networks, with data of their own
        run = jax.jit(mixed(function, mesh, (False, True, True, True), True))
        return run(Given(first.key, *everything[1:])), [
            x._replace(key=first.key) for x in own
        ]

    def one_set():  # keys of their own, with the same data
        run = jax.jit(mixed(function, mesh, (True, False, False, False), True))
        return run(Given(everything.key, *first[1:])), [
            Given(x.key, *first[1:]) for x in own
        ]

    def sharded():
        return at_first(jax.jit(function)(shares(mesh, first))), own[:1]

    return {
        "one_key": one_key,
        "one_set": one_set,
        "vmap": lambda: (jax.jit(jax.vmap(function))(everything), own),
        "sharded": sharded,
        "checked": lambda: shard_map(True),
        "unchecked": lambda: shard_map(False),
    }


def at_first(tree):
    return jax.tree.map(lambda x: x[None], tree)


def check(name, everything, mesh, chosen):
    """Returns one line for each way to run that gives other numbers."""
    function, _ = CASES[name]
    alone = jax.jit(function)
    failures = []
    for way, run in ways(function, everything, mesh).items():
        if way not in chosen:
            continue
        try:
            found, inputs = run()
        except Exception as error:
            failures.append(f"{name}, {way}: {type(error).__name__} {error}")
            if "-v" in sys.argv:
                traceback.print_exc()
            continue
        for i, own in enumerate(inputs):
            pairs = zip(numbers(at(found, i)), numbers(alone(own)), strict=True)
            gap = max(apart(a, b) for a, b in pairs)
            if gap > 1:
                failures.append(f"{name}, {way}, device {i}: {gap:.3g} tolerances apart")
                break
    return failures


def apart(a, b):
    """Returns the largest difference in units of what rounding explains."""
    if a.dtype.kind in "iub":
        return float((a != b).any()) * 1e9
    tolerance = 1e-4 * max(1e-3, float(np.abs(np.nan_to_num(b)).max(initial=0.0)))
    same = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
    return float(np.nan_to_num(same, nan=np.inf).max(initial=0.0)) / tolerance


def main():
    assert jax.device_count() == NUM
    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    everything = given(NUM)
    names = [name for name in sys.argv[1:] if name in CASES] or list(CASES)
    listed = [a.removeprefix("--ways=") for a in sys.argv if a.startswith("--ways=")]
    chosen = listed[0].split(",") if listed else list(WAYS)
    failures = []
    for name in names:
        began = time.process_time()
        for failure in check(name, everything, mesh, chosen):
            failures.append(failure)
            print(failure, flush=True)
        print(
            f"{name}: {time.process_time() - began:.1f} CPU s", file=sys.stderr, flush=True
        )
    if not failures:
        print(f"{len(names)} cases agree")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
