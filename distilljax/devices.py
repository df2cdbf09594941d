"""Work spread over devices: a mesh of one axis, and maps and sums over it.

A function that does many independent things, such as training networks, takes a mesh and
gives each device its share. The results do not depend on the mesh, beyond the order in
which sums are rounded; None is the device that JAX chooses.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from distilljax import checks, processes, varying
from distilljax.config import FieldError
from distilljax.types import Array, InputError

AXIS = "device"


def mesh(num: int | None = None) -> Mesh | None:
    """Returns a mesh of the first `num` devices; None for a single one.

    Args:
      num: number of devices; None for all that there are. Of several processes, see
        `distilljax.processes`, each has as many of them.

    Raises:
      FieldError: more devices than there are, or none; or a number that the processes
        do not divide.
    """
    found = jax.devices()
    if num is not None and (not isinstance(num, int) or isinstance(num, bool)):
        raise _refused(num, "give a whole number, or None")
    num = len(found) if num is None else num
    if not 1 <= num <= len(found):
        platform = found[0].platform
        reason = f"there are {len(found)} ({platform}); give 1..{len(found)}"
        raise _refused(num, reason)
    count = processes.count()
    if num % count:
        reason = f"{count} processes have as many each; give a multiple of {count}"
        raise _refused(num, reason)
    taken = dict.fromkeys(range(count), 0)
    chosen = []
    for device in found:
        if taken[device.process_index] < num // count:
            taken[device.process_index] += 1
            chosen.append(device)
    if len(chosen) < num:
        reason = f"process {min(taken, key=lambda i: taken[i])} has fewer; give less"
        raise _refused(num, reason)
    return Mesh(np.array(chosen), (AXIS,)) if num > 1 else None


def _refused(num: int, reason: str) -> FieldError:
    return processes.known_to_all(FieldError("devices", num, reason))


def size(over: Mesh | None) -> int:
    """Returns the number of devices of a mesh.

    Raises:
      InputError: it is no mesh.
    """
    if over is None:
        return 1
    if not isinstance(over, Mesh):
        raise InputError(
            f"mesh={over!r:.40}: give distilljax.devices.mesh(2), for example, or None"
        )
    return over.size


def everywhere(tree: Any, over: Mesh | None) -> Any:
    """Returns arrays, or shapes of arrays, with a copy on every device.

    None leaves them where they are. Of several processes each gives the same values.
    """
    if over is None:
        return tree
    place = NamedSharding(over, PartitionSpec())

    def one(x: Any) -> Any:
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        return placed(x, place)

    return jax.tree.map(one, tree)


def placed(x: Any, place: Sharding) -> Array:
    """Returns an array on the devices of a sharding, which may be those of others."""
    if place.is_fully_addressable:
        return jax.device_put(x, place)
    if getattr(x, "sharding", None) == place:
        return x
    if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = placed(jax.random.key_data(x), place)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    held = np.asarray(x)
    return jax.make_array_from_callback(held.shape, place, lambda index: held[index])


def here(tree: Any) -> Any:
    """Returns arrays that lie on the devices of several processes as arrays of this one.

    Each process has a copy of them; others are left where they are.
    """

    def one(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return x
        return jnp.asarray(np.asarray(x))

    return jax.tree.map(one, tree)


def jit(function: Callable[..., Any], over: Mesh | None) -> Any:
    """Returns the compiled function, with results on every device of a mesh.

    Its arguments are those of `everywhere`.
    """
    if over is None:
        return jax.jit(function)
    return jax.jit(function, out_shardings=NamedSharding(over, PartitionSpec()))


def spread(
    function: Callable[[Any], Any],
    xs: Any,
    over: Mesh | None,
    *,
    together: int = 1,
    costs: Array | None = None,
) -> Any:
    """Returns `jax.lax.map(function, xs)`, each device computing its share.

    A number that the devices do not divide is filled up with copies of the last x, so that
    no device does more than it would by an even split.

    Args:
      function: x -> a pytree of arrays. It may close over arrays, which every device holds.
      xs: a pytree of arrays with one leading axis n.
      over: mesh of one axis; None for no spreading.
      together: how many a device computes at a time, vmapped.
      costs: f[n] or i[n], by which the xs are dealt out, so that every device has dear and
        cheap ones; None if they cost the same.

    Returns:
      A pytree of arrays with leading axis n.

    Raises:
      InputError: leading axes that differ, `together` below 1, or what is no mesh.
    """
    together = checks.positive(together, "together")
    lengths = [jnp.shape(x)[:1] for x in jax.tree.leaves(xs)]
    if not all(lengths) or len(set(lengths)) != 1:
        raise InputError(
            f"arrays of the lengths {sorted(n for (n,) in set(lengths) - {()})} were to be "
            "shared by the devices: give arrays with one leading axis, one entry each"
        )
    batch_size = together if together > 1 else None

    def share(xs: Any) -> Any:
        return jax.lax.map(function, xs, batch_size=batch_size)

    if over is None:
        return share(xs)
    num = jax.tree.leaves(xs)[0].shape[0]
    places = jnp.minimum(jnp.arange(num + -num % size(over)), num - 1)
    if costs is not None:
        dealt = jnp.argsort(-costs)[places]
        places = dealt.reshape(-1, over.size).T.reshape(-1)
    found = _sharded(share, over)(jax.tree.map(lambda x: x[places], xs))
    if costs is None:
        return jax.tree.map(lambda x: x[:num], found)
    first = jnp.argsort(places, stable=True)[
        jnp.searchsorted(jnp.sort(places), jnp.arange(num))
    ]
    return jax.tree.map(lambda x: x[first], found)


def split(tree: Any, over: Mesh | None) -> Any:
    """Asks for leading axes to lie in shares on the devices; values are unchanged.

    Where the devices do not divide an axis, as many as do hold a share each, the others
    copies. For use inside jit.
    """
    if over is None:
        return tree

    def one(x: Array) -> Array:
        parts = math.gcd(x.shape[0], over.size)
        grid = Mesh(over.devices.reshape(-1, parts), ("copy", AXIS))
        return jax.lax.with_sharding_constraint(x, NamedSharding(grid, PartitionSpec(AXIS)))

    return jax.tree.map(one, tree)


def added(
    share: Callable[[Any, Any, Array], Array], shared: Any, xs: Any, over: Mesh
) -> Array:
    """Returns the sum over devices of what each makes of its share; differentiable.

    Args:
      share: (shared, xs, counts) -> f32[]; counts bool[m] tells the xs from those that
        only fill up the share.
      shared: a pytree that every device holds.
      xs: a pytree of arrays with one leading axis.
      over: mesh of one axis.
    """
    num = jax.tree.leaves(xs)[0].shape[0]
    places = jnp.arange(num + -num % over.size)
    given = jax.tree.map(lambda x: x[jnp.minimum(places, num - 1)], xs)
    (axis,) = over.axis_names
    along = PartitionSpec(axis)
    return jax.shard_map(
        lambda shared, xs, counts: share(shared, xs, counts)[None],
        mesh=over,
        in_specs=(PartitionSpec(), along, along),
        out_specs=along,
        check_vma=False,
    )(shared, given, places < num).sum()


def share_of(tree: Any, axis: str) -> Any:
    """Returns a device's share of leading axes, for use inside `jax.shard_map`.

    Where the devices do not divide an axis, as many as do have a share each, the others the
    same ones again: the mean over all devices of means over shares is that of the whole.

    Args:
      tree: a pytree of arrays, alike on all devices.
      axis: name of the mesh axis.
    """
    num, this = jax.lax.axis_size(axis), jax.lax.axis_index(axis)

    def one(x: Array) -> Array:
        parts = math.gcd(x.shape[0], num)
        each = x.shape[0] // parts
        return jax.lax.dynamic_slice_in_dim(x, this % parts * each, each)

    return jax.tree.map(one, tree)


def separate(tree: Any, over: Mesh | None) -> Any:
    """Lets the devices have derivatives of their own, added once, inside `averaged`.

    Without it those of an array that all hold alike are added wherever it is used, such as
    in every step of a loop.
    """
    return tree if over is None else varying.vary(tree, frozenset(over.axis_names))


def averaged(
    function: Callable[[Any, Any], Array], shared: Any, xs: Any, over: Mesh | None
) -> Array:
    """Returns the mean over devices of what each makes of its share; differentiable.

    It is that of the whole if the function is a mean over the leading axes of xs.

    Args:
      function: (shared, share of xs) -> f32[].
      shared: a pytree that every device holds.
      xs: a pytree of arrays; leading axes are divided as by `share_of`.
      over: mesh of one axis; None for all xs at once.
    """
    if over is None:
        return function(shared, xs)
    (axis,) = over.axis_names
    divided = jax.tree.map(lambda x: x.shape[0] % over.size == 0, xs)
    along = jax.tree.map(lambda d: PartitionSpec(axis) if d else PartitionSpec(), divided)

    def of_one(shared: Any, xs: Any) -> Array:
        own = jax.tree.map(lambda d, x: x if d else share_of(x, axis), divided, xs)
        return jax.lax.pmean(function(shared, own), axis)

    return jax.shard_map(
        of_one, mesh=over, in_specs=(PartitionSpec(), along), out_specs=PartitionSpec()
    )(shared, xs)


def _sharded(share: Callable[[Any], Any], over: Mesh) -> Callable[[Any], Any]:
    """Returns the function of all shares; what `share` closes over becomes an argument.

    Inside `shard_map` an array that is closed over and lies on the mesh could not be
    indexed. `share` is one jitted function there, since what its branches and loops return
    is typed by the mesh outside, and cannot be added to what is computed beside them.
    """
    (axis,) = over.axis_names
    along = PartitionSpec(axis)

    def of_all(xs: Any) -> Any:
        one = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                (x.shape[0] // over.size, *x.shape[1:]), x.dtype
            ),
            xs,
        )
        closed, like = jax.make_jaxpr(jax.jit(share), return_shape=True)(one)

        def of_one(xs: Any, held: Any) -> Any:
            found = jax.core.eval_jaxpr(closed.jaxpr, held, *jax.tree.leaves(xs))
            return jax.tree.unflatten(jax.tree.structure(like), found)

        return jax.shard_map(
            of_one,
            mesh=over,
            in_specs=(along, PartitionSpec()),
            out_specs=along,
            check_vma=False,
        )(xs, closed.consts)

    return of_all
