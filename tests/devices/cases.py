"""What is computed: one case covers some public functions, named by module and function."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distilljax import data, varying
from distilljax.analysis import (
    agreement,
    connectivity,
    coresets,
    datamodels,
    leave_one_out,
    pools,
    spectrum,
)
from distilljax.core import (
    augment,
    distilled,
    inner,
    losses,
    outer,
    parameters,
    sampling,
    scan,
)
from distilljax.core.parameters import Trajectories
from distilljax.core.parametrisations import memory, multi_formation
from distilljax.curvature import estimators, hessian, influence, kernels, ntk
from distilljax.methods import bptt, dm, gm, kernel, tm
from distilljax.models import convnet, mlp
from distilljax.training import evaluation, expert
from distilljax.training.protocols import EvaluationProtocol
from distilljax.types import Batch, DistilledSet, Key, RealSet

SHAPE, CLASSES = (8, 8, 1), 4
MLP = mlp.make(mlp.Config(width=5, depth=1), SHAPE, CLASSES)
CONVNET = convnet.make(convnet.Config(width=3, depth=1), SHAPE, CLASSES)
LOSS = losses.cross_entropy(MLP.apply)
PROTOCOL = EvaluationProtocol(steps=3, lr=0.1)


class Given(NamedTuple):
    """The inputs of one device; those of all devices have a leading axis."""

    key: Key  # key[]
    distilled: DistilledSet  # eight images
    real: RealSet  # 24 images
    experts: Trajectories  # two experts, three epochs


def given(num: int) -> Given:
    """Returns inputs for `num` devices, all different."""

    def one(seed: int) -> tuple[DistilledSet, RealSet, Trajectories]:
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(CLASSES, dtype=np.int32), 6)
        images = rng.integers(0, 256, (24, *SHAPE)).astype(np.uint8)
        split = data.Split(images, labels)
        transform = data.fit("normalise", split.images)
        start = distilled.create(
            jnp.asarray(rng.normal(size=(8, *SHAPE)), jnp.float32),
            jnp.asarray(np.repeat(np.arange(CLASSES), 2)),
            CLASSES,
            learning_rate=0.05,
            confidence=0.9,
        )
        shape = (2, 3, parameters.num_params(MLP))
        experts = Trajectories(
            jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32), jnp.int32(0)
        )
        return start, data.on_device(split, transform, CLASSES), experts

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *map(one, range(num)))
    return Given(jax.random.split(jax.random.key(5), num), *stacked)


CASES: dict[str, tuple[Callable[[Given], Any], frozenset[str]]] = {}


def case(*covers: str) -> Callable[[Callable[[Given], Any]], Callable[[Given], Any]]:
    """Adds a function to the table, with the public functions: `module: name name`."""
    pairs = (text.split(": ") for text in covers)
    names = frozenset(f"{module}.{name}" for module, n in pairs for name in n.split())

    def add(function: Callable[[Given], Any]) -> Callable[[Given], Any]:
        CASES[function.__name__] = function, names
        return function

    return add


def batch_of(x: Given) -> Batch:
    return distilled.as_batch(x.distilled)


def outer_steps(method: outer.Method, x: Given, source: Any) -> Any:
    state = method.init(x.key, x.distilled)
    keys = jax.random.split(x.key, 2)
    return varying.scan(lambda s, key: method.step(key, s, source), state, keys)


@case(
    "outer: per_field from_outer_loss method_rules",
    "bptt: make outer_loss first_step inner_optimizer",
)
def bptt_steps(x):
    config = bptt.Config(unroll=3, real_batch=8, lr_lr=0.01, label_lr=0.1)
    return outer_steps(bptt.make(config, MLP), x, x.real)


@case(
    "outer: clip_by_running_norm",
)
def bptt_windows(x):
    """On an MLP: of the ConvNet some weights have gradients so near 0 that the derivative
    of Adam's steps, also in float64, turns on the seventh digit of an image.
    """
    config = bptt.Config(
        unroll=4,
        window=2,
        random_window=True,
        inner="adam",
        inner_batch=4,
        real_batch=8,
        augment="flip",
        inner_augment="flip",
        clip_running=True,
        remat="nested",
    )
    return outer_steps(bptt.make(config, MLP), x, x.real)


@case(
    "gm: make outer_loss new_network ageing",
    "distances: gradient_distance",
    "sampling: minibatches",
    "scan: spread_sum",
)
def gm_steps(x):
    config = gm.Config(
        real_batch=4, outer_loop=2, inner_loop=1, network_batch=4, augment="flip_color"
    )
    return outer_steps(gm.make(config, MLP), x, x.real)


@case(
    "dm: make outer_loss",
    "distances: class_mean_gap",
    "sampling: class_positions",
)
def dm_steps(x):
    return outer_steps(dm.make(dm.Config(real_batch=4), CONVNET), x, x.real)


@case(
    "tm: make outer_loss first_step latest_start",
    "distances: parameter_distance",
    "parameters: unflatten",
)
def tm_steps(x):
    config = tm.Config(
        student_steps=2,
        expert_epochs=1,
        max_start=1,
        first_max_start=0,
        segments=2,
        student_batch=4,
        augment="flip",
    )
    return outer_steps(tm.make(config, MLP), x, x.experts)


@case(
    "memory: make",
    "multi_formation: make",
)
def stored_sets(x):
    found = []
    for module, settings in ((memory, {"images": 4}), (multi_formation, {"factor": 2})):
        stored = module.make(module.Config(**settings), SHAPE, CLASSES, 2)
        places = jnp.resize(jnp.arange(8), CLASSES * stored.images_per_class)
        start = jax.tree.map(lambda a, at=places: a[at], x.distilled[:2])
        code = stored.encode(DistilledSet(*start, x.distilled.log_lr))
        found.append(stored.decode(code))
    return found


@case("augment: " + " ".join(("augment", *augment.OPERATIONS)))
def augmented(x):
    u = jax.random.uniform(x.key, (3,))
    each = {
        name: operation(x.distilled.images[0], u)
        for name, operation in augment.OPERATIONS.items()
    }
    both = augment.augment(x.key, x.distilled.images, strategy="color_flip_turn")
    return each, both


@case(
    "distilled: create as_batch hard_labels",
    "sampling: take batch class_batch epochs",
    "losses: accuracy cross_entropy",
    "inner: init step value_and_grad",
    "parameters: flatten",
    "scan: pieces summed",
)
def one_step(x):
    rule = optax.adam(0.1)
    state = inner.init(MLP.init(x.key), rule)
    batch = sampling.batch(x.key, x.real, 8)
    made = distilled.create(
        x.distilled.images, np.repeat(np.arange(CLASSES), 2), CLASSES, learning_rate=0.1
    )
    hard = distilled.hard_labels(x.distilled)
    first = sampling.epochs(x.key, 24, 5, 4)
    parts = scan.pieces(batch, 4)

    def total(params, parts):
        return scan.summed(LOSS, params, parts)

    state, loss = inner.step(LOSS, rule, state, batch, chunk=4)
    gradient = jax.grad(total, 1)(state.params, parts)
    value = inner.value_and_grad(LOSS, MLP.init(jax.random.key(3)), batch)
    right = losses.accuracy(MLP.apply(state.params, batch.images), jnp.zeros(8, jnp.int32))
    chosen = first, sampling.class_batch(x.key, x.real, 2)
    flat = parameters.flatten(state.params)
    return made, hard, chosen, flat, loss, gradient, value, right


@case(
    "inner: unroll truncated_unroll",
    "scan: scan",
)
def meta_gradient(x):
    """Weights that are constants, trained on what varies; and the other way."""
    batch = batch_of(x)

    def after(images, remat):
        rule = optax.sgd(0.1, momentum=0.9)
        state = inner.init(MLP.init(jax.random.key(1)), rule)
        own = batch._replace(images=images)
        state, seen = inner.unroll(
            LOSS, rule, lambda _: own, state, jnp.arange(4), remat=remat
        )
        state, _ = inner.truncated_unroll(
            LOSS, rule, lambda _: own, state, jnp.arange(3), start=1, window=2
        )
        return LOSS(state.params, batch) + seen.sum()

    return [jax.value_and_grad(after)(batch.images, r) for r in ("none", "step", "nested")]


@case(
    "evaluation: train predict network as_batch",
)
def trained(x):
    params = evaluation.train(x.key, CONVNET, batch_of(x), PROTOCOL)
    return params, evaluation.predict(CONVNET.apply, params, x.real, chunk=7)


@case(
    "protocols: optimizer",
    "evaluation: fresh_accuracy",
)
def trained_otherwise(x):
    looks = EvaluationProtocol(
        steps=4, batch=4, optimizer="adam", loss="squared_error", check_every=2,
        centre=True, average=0.9, warmup=1, cosine_to=0.0, weight_decay=1e-3,
    )  # fmt: skip
    keys = jax.random.split(x.key, 3)
    data = evaluation.as_batch(x.distilled, looks)
    scores = evaluation.fresh_accuracy(
        keys, MLP, data, x.real, looks, validation=x.real, together=2
    )
    real = dataclasses.replace(PROTOCOL, batch=8)
    return scores, evaluation.train(x.key, MLP, x.real, real)


@case(
    "expert: init epoch epoch_key optimizer sharpness_aware difficulty taking_part",
)
def experts(x):
    recipe = expert.Recipe(momentum=0.5, weight_decay=1e-3, batch=8, sam_rho=0.05)
    state = expert.init(expert.epoch_key(x.key, 1, 0), MLP, recipe)
    scores = expert.difficulty(x.key, MLP, x.real, recipe, networks=2, epochs=1)
    included = expert.taking_part(scores, 1)
    key = expert.epoch_key(x.key, 1, 1)
    return scores, expert.epoch(key, MLP, x.real, recipe, state, included)


@case(
    "leave_one_out: retrain retrain_on leave_one_out pairs arrange influence",
    "leave_one_out: mean_influence noise_floor over_noise rank_correlation reliability",
)
def left_out(x):
    keys = jax.random.split(x.key, 2)
    found = leave_one_out.leave_one_out(
        keys, MLP, batch_of(x), x.real, PROTOCOL, together=4
    )
    moved = leave_one_out.influence(found.without.losses, found.whole.losses)
    return (
        found.without.losses,
        leave_one_out.mean_influence(moved),
        leave_one_out.noise_floor(found.whole.losses),
        leave_one_out.over_noise(moved, found.whole.losses).value,
    )


@case(
    "pools: order train_on_subset subset_trained early_stopped predicted",
)
def pools_of_networks(x):
    rule = optax.sgd(0.1, momentum=0.9)
    keys, where = jax.random.split(x.key, 2), jnp.arange(24).reshape(2, 12)
    few = pools.subset_trained(
        keys, MLP, x.real, where, jnp.array([12, 7]), x.real,
        epochs=2, batch=5, optimizer=rule, chunk=2,
    )  # fmt: skip
    weights = pools.train_on_subset(
        x.key, MLP, x.real, where[0], jnp.int32(9), epochs=1, batch=4, optimizer=rule
    )
    stopped = pools.early_stopped(
        keys, MLP, x.real, x.real, iterations=4, every=2, batch=8, optimizer=rule
    )
    return few, weights, stopped


@case(
    "agreement: agreement expected_agreement corrected error_consistency cohen_kappa "
    "difference",
)
def agreements(x):
    p, q = jax.random.randint(x.key, (2, 3, 24), 0, CLASSES)
    first, second = (
        estimators.summarise(jax.random.normal(key, (5,)), "x")
        for key in jax.random.split(x.key)
    )
    return (
        agreement.agreement(p, q),
        agreement.error_consistency(p, q, x.real.labels),
        agreement.cohen_kappa(p, q, CLASSES),
        agreement.corrected(
            jnp.float32(0.9), agreement.expected_agreement(0.5, first.value, CLASSES)
        ),
        agreement.difference(first, second),
    )


@case(
    "coresets: herding k_centre pixels",
)
def chosen(x):
    features = coresets.pixels(x.distilled.images)
    return coresets.herding(features, 4), coresets.k_centre(features, 4)


def matvec_of(x: Given) -> tuple[Any, Any]:
    """Weights that are constants: no key of the device settles them."""
    params = MLP.init(jax.random.key(2))
    return hessian.hvp(LOSS, params, batch_of(x), chunk=3), params


@case(
    "hessian: hvp ggn along mean_over",
    "estimators: probe dot quadratic_form",
)
def products(x):
    matvec, params = matvec_of(x)
    v = estimators.probe(x.key, params)
    same = jax.tree.map(jnp.ones_like, params)
    gauss = hessian.ggn(MLP.apply, params, batch_of(x), chunk=3)
    curved = hessian.along(LOSS, params, batch_of(x), v)
    return (
        matvec(v),
        matvec(same),
        gauss(v),
        gauss(same),
        curved,
        estimators.quadratic_form(matvec)(same),
    )


@case(
    "hessian: trace batch_trace",
    "estimators: hutchinson_trace deflated_trace block_traces diagonal summarise "
    "sampled_mean sampled_mean_to",
)
def traces(x):
    matvec, params = matvec_of(x)
    shared = {"num_probes": 4, "together": 2}
    batch = batch_of(x)
    return (
        hessian.trace(LOSS, params, batch, x.key, chunk=3, **shared),
        hessian.batch_trace(LOSS, params, batch, x.key, batch=4, **shared),
        hessian.batch_trace(
            LOSS, params, batch, x.key, batch=4, relative_error=0.3, max_probes=12
        ),
        estimators.hutchinson_trace(matvec, x.key, params, num_probes=3),
        estimators.deflated_trace(matvec, x.key, params, num_products=6).value,
        estimators.block_traces(matvec, x.key, params, num_probes=3),
        estimators.diagonal(matvec, x.key, params, num_probes=3),
    )


@case(
    "estimators: lanczos extreme_eigenpairs spectral_density mean_over_spectrum "
    "smoothed_density",
)
def eigenvalues(x):
    matvec, params = matvec_of(x)
    same = estimators.probe(jax.random.key(4), params)
    density = estimators.spectral_density(matvec, x.key, params, num_probes=2, num_iters=3)
    return (
        estimators.lanczos(matvec, same, num_iters=3).diag,
        estimators.extreme_eigenpairs(matvec, x.key, params, num_iters=4).values,
        estimators.mean_over_spectrum(density, jnp.square, "x"),
        estimators.smoothed_density(density, jnp.linspace(-1, 1, 3), 0.5),
    )


@case(
    "influence: influence_function conjugate_gradients",
)
def influences(x):
    """Six iterations, far from the end, where the residual is more than rounding."""
    params, batch = MLP.init(jax.random.key(2)), batch_of(x)

    def each(params, batch):
        logits = MLP.apply(params, batch.images)
        return optax.losses.softmax_cross_entropy(logits, batch.labels)

    return influence.influence_function(
        hessian.ggn(MLP.apply, params, batch), each, params, batch, each, batch,
        damping=0.1, positions=jnp.arange(3), chunk=3, together=2, max_iters=6,
    )  # fmt: skip


@case(
    "ntk: empirical_ntk ntk_vp sketch sketched_ntk linearised",
)
def tangent_kernels(x):
    params, images = MLP.init(jax.random.key(2)), x.distilled.images
    apply = MLP.apply
    moved = MLP.init(x.key)
    return (
        ntk.empirical_ntk(apply, params, images, block=3),
        ntk.empirical_ntk(apply, params, images, images[:5], form="trace", block=3),
        ntk.empirical_ntk(apply, params, images[:4], form="classes"),
        ntk.ntk_vp(apply, params, images, block=3)(jnp.ones((8, CLASSES))),
        ntk.sketched_ntk(ntk.sketch(apply, params, images, x.key, 3, block=3)),
        ntk.linearised(apply, params)(moved, images),
    )


@case(
    "kernels: inner kernel_distance kernel_velocity centre alignment label_kernel "
    "label_alignment class_means as_matrix spectrum effective_rank participation_ratio "
    "condition_number kernel_ridge predict predict_linearised leave_one_out gradient_flow",
)
def kernel_numbers(x):
    a, b = (
        jnp.eye(8) + 0.1 * z @ z.T
        for z in jax.random.normal(x.key, (2, 8, 5)).astype(jnp.float32)
    )
    y = batch_of(x).labels
    cross, zero = a[:3], jnp.zeros_like(y)
    values = kernels.spectrum(a)
    return (
        kernels.kernel_velocity(a, b, 0.5),
        kernels.alignment(a, b, centred=True),
        kernels.label_alignment(a, y),
        kernels.class_means(a, y),
        kernels.as_matrix(a.reshape(4, 4, 2, 2)),
        kernels.effective_rank(values),
        kernels.participation_ratio(values),
        kernels.condition_number(values),
        kernels.predict_linearised(a, cross, y, zero, zero[:3], ridge=0.1),
        kernels.leave_one_out(a, cross, y, 0.1),
        kernels.gradient_flow(a, y, zero, jnp.ones(2), cross, zero[:3]),
    )


# Functions of the host, or of shapes alone: nothing of theirs runs on a device.
@case(
    "bptt: adapted_window gradient_norms",
    "inner: sized_unroll terms filled",
)
def bptt_adapted(x):
    config = bptt.Config(
        unroll=5, window=3, adapt=1, first_stage=1, middle_stage=0, real_batch=7
    )
    return outer_steps(bptt.make(config, CONVNET), x, x.real)


@case("distances: characteristic_gap")
def dm_characteristic(x):
    config = dm.Config(real_batch=4, match="characteristic", frequencies=8)
    return outer_steps(dm.make(config, CONVNET), x, x.real)


@case(
    "kernel: make outer_loss new_pool ageing features_kernel linear_kernel ntk_kernel "
    "kernel_regression linearised_regression squared_error margin",
    "losses: squared_error tempered_cross_entropy",
    "regression: linearised_ridge",
    "distilled: separate_targets",
)
def kernel_steps(x):
    found = []
    for name, age, loss in (
        ("features", 2, "squared_error"),
        ("linear", 0, "squared_error"),
        ("ntk", 0, "squared_error"),
        ("linearised", 2, "cross_entropy"),
    ):
        config = kernel.Config(
            kernel=name,
            loss=loss,
            pool=2,
            max_age=age,
            network_steps=1 + (name == "linearised"),
            weight_decay=0.1,
            real_batch=6,
            ridge=1e-2,
            outer="adam",
        )
        state, info = outer_steps(kernel.make(config, MLP), x, x.real)
        found.append((distilled.separate_targets(state.distilled), info.loss))
    return found


@case(
    "connectivity: between along points sharpness",
    "spectrum: basis energy",
    "coresets: random_part",
)
def lines_and_directions(x):
    first, second = (MLP.init(key) for key in jax.random.split(x.key))
    batch = batch_of(x)
    losses = connectivity.along(
        lambda params: LOSS(params, batch), first, second, connectivity.points(3)
    )
    sharp = connectivity.sharpness(MLP.apply, first, batch.images, x.key, chunk=4)
    features = coresets.pixels(batch.images)
    along = spectrum.basis(features @ jnp.eye(features.shape[1], 4))
    found = spectrum.energy(features[:, :4], batch.labels, along)
    part = coresets.random_part(x.key, CLASSES, 2, 1)
    return losses, sharp.value, along.eigenvalues, found.sum(), part


@case(
    "datamodels: random_members linear_datamodelling_score margin margin_features trak",
)
def data_models(x):
    members = datamodels.random_members(x.key, 6, 8, 4)
    attributions = jax.random.normal(x.key, (8, 5))
    outputs = members.astype(jnp.float32) @ attributions
    outputs += jax.random.normal(jax.random.fold_in(x.key, 1), outputs.shape)
    logits = jax.random.normal(jax.random.fold_in(x.key, 2), (5, CLASSES))
    classes = jnp.arange(5) % CLASSES
    features = jax.random.normal(jax.random.fold_in(x.key, 3), (5, CLASSES, 3))
    projected = datamodels.margin_features(features, logits, classes)
    return (
        members,
        datamodels.linear_datamodelling_score(attributions, members, outputs),
        datamodels.margin(logits, classes),
        datamodels.trak(projected, projected + 1, jnp.full(5, 0.3), 0.1),
    )


HOST = {
    "augment.register",
    "connectivity.barrier",
    "spectrum.num_strong",
    "spectrum.weak_share",
    "augment.parse",
    "inner.cache_chunk",
    "inner.memory_chunk",
    "losses.shared_by",
    "inner.cache_groups",
    "parameters.num_params",
    "base.stored_numbers",
    "direct.make",
    "sampling.even_batches",
    "agreement.nearest",
    "agreement.at_accuracy",
    "agreement.matched",
    "coresets.select",
    "pools.subsets",
    "pools.mean_error",
    "statistics.quantile",
    "statistics.spread",
    "statistics.spread_interval",
    "statistics.student",
    "statistics.from_error",
    "statistics.from_relative_error",
    "statistics.wilson",
    "statistics.satterthwaite",
    "statistics.std_bias",
    "estimators.check_probes",
    "estimators.require_finite",
    "hessian.num_examples",
    "hessian.check",
    "hessian.check_mean",
    "protocols.check",
}
