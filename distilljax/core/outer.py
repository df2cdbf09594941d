"""The outer loop: a distillation method as a pair of pure functions."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from distilljax import checks, exported, varying
from distilljax.core.parametrisations import DIRECT, Parametrisation
from distilljax.types import Array, DistilledSet, InputError, Key

exported.optimizer_states()


@exported.named
class OuterState(NamedTuple):
    """State carried between outer steps.

    Attributes:
      distilled: encoded, see `Method.decode`.
      opt_state: state of the outer optimizer.
      aux: method state, such as the network of gradient matching.
      step: i32[], number of outer steps taken.
    """

    distilled: DistilledSet
    opt_state: optax.OptState
    aux: Any
    step: Array


@exported.named
class StepInfo(NamedTuple):
    """Scalars logged for each outer step.

    Attributes:
      loss: f32[], outer loss before the step.
      grad_norm: f32[], norm of the meta-gradient over all learned fields.
      learning_rate: f32[], inner learning rate before the step.
    """

    loss: Array
    grad_norm: Array
    learning_rate: Array


Source = Any  # real data on the device, or expert trajectories
OuterLoss = Callable[[DistilledSet, Key, Any, Source], tuple[Array, Any]]
After = Callable[[DistilledSet, Key, Any, Source], Any]


class Method(NamedTuple):
    """A dataset-distillation method as pure functions; the caller applies `jit`.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> from distilljax.core import distilled, outer
        >>> def outer_loss(distilled, key, aux, source):
        ...     return jnp.square(distilled.images - source).sum(), aux
        >>> rules = outer.per_field(images=optax.sgd(0.5))
        >>> method = outer.from_outer_loss(outer_loss, rules)
        >>> start = distilled.create(
        ...     jnp.zeros((2, 8, 8, 1)), jnp.arange(2), 2, learning_rate=0.1)
        >>> state = method.init(jax.random.key(0), start)
        >>> state, info = method.step(jax.random.key(1), state, jnp.ones((8, 8, 1)))
        >>> float(info.loss), float(state.distilled.images.mean())
        (128.0, 1.0)

    Attributes:
      init: (key, distilled set) -> state before the first outer step.
      step: (key, state, source) -> state after one outer step, and its scalars.
      decode: encoded set -> the set that networks are trained on; see `parametrisations`.
      check_source: source -> None; raises `InputError` for one that the step cannot use. It
        sees values, which a compiled step does not; `loop.run` calls it first.
    """

    init: Callable[[Key, DistilledSet], OuterState]
    step: Callable[[Key, OuterState, Source], tuple[OuterState, StepInfo]]
    decode: Callable[[DistilledSet], DistilledSet] = DIRECT.decode
    check_source: Callable[[Source], None] = lambda source: None


Schedule = Callable[[Array], Array]  # i32[] number of updates -> f32[] learning rate


class Optimizers(NamedTuple):
    """Optimizers of the caller, in place of those that the `Config` of a method describes.

    Each is an optax transformation, or a schedule that the optimizer of the `Config` takes
    for its learning rate, or None for what the `Config` says. Limits of the `Config` on the
    gradient (`clip`) and on the inner learning rate stay in force. They go into
    `distil(..., optimizers=own)`, or into `make` of any method.

        >>> import distilljax
        >>> import optax
        >>> own = distilljax.Optimizers(
        ...     images=optax.cosine_decay_schedule(0.1, 100), log_lr=optax.adam(1e-3))
        >>> print(own.label_logits)
        None

    Attributes:
      images: for the images.
      label_logits: for the label logits, which are then learned.
      log_lr: for the log of the inner learning rate, which is then learned.
    """

    images: optax.GradientTransformation | Schedule | None = None
    label_logits: optax.GradientTransformation | Schedule | None = None
    log_lr: optax.GradientTransformation | Schedule | None = None


class Descent(NamedTuple):
    """Optimizer of one field as a `Config` describes it.

    Attributes:
      rule: SGD, Adam, AdaBelief, or LAMB without weight decay.
      learning_rate: constant, or a schedule; 0: the field is not learned.
      momentum: of SGD.
    """

    rule: Literal["sgd", "adam", "adabelief", "lamb"]
    learning_rate: float | Schedule
    momentum: float = 0.0

    def optimizer(self) -> optax.GradientTransformation | None:
        """Returns the optimizer for `per_field`; None if the field is not learned."""
        if not self.learning_rate:
            return None
        rate: Any = self.learning_rate
        if self.rule == "adam":
            return optax.adam(rate)
        if self.rule == "adabelief":
            return optax.adabelief(rate)
        if self.rule == "lamb":
            return optax.lamb(rate)
        return optax.sgd(rate, momentum=self.momentum or None)


@exported.named
class RunningNorm(NamedTuple):
    """State of `clip_by_running_norm`.

    Attributes:
      mean: f32[], moving average of the norms so far.
    """

    mean: Array


def clip_by_running_norm(
    multiple: float, decay: float = 0.9
) -> optax.GradientTransformation:
    """Clips a gradient to `multiple` times a moving average of the norms.

    With the norms n_t of the gradients before they are clipped, as in the code of RaT-BPTT
    (Feng et al. 2023, arXiv 2310.04295), whose multiple is 2:

        m_1 = n_1,   m_t = decay m_{t-1} + (1 - decay) n_t,   at most multiple m_t

    The average begins at the first norm that is not zero, and holds the norm of the step
    itself: the first gradient is not clipped, in RaT-BPTT others above 2.25 m_{t-1}.

    >>> rule = outer.clip_by_running_norm(2.0)
    >>> state = rule.init(jnp.zeros(2))
    >>> _, state = rule.update(jnp.array([1.0, 0.0]), state)
    >>> clipped, state = rule.update(jnp.array([10.0, 0.0]), state)
    >>> [round(x, 3) for x in clipped.tolist()]
    [3.8, 0.0]

    Args:
      multiple: of the average.
      decay: of the average, in [0, 1).
    """

    def init(params: Any) -> RunningNorm:
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        return RunningNorm(jnp.zeros((), dtype))

    def update(grads: Any, state: RunningNorm, params: Any = None) -> tuple[Any, Any]:
        norm = optax.tree.norm(grads)
        moved = decay * state.mean + (1 - decay) * norm
        mean = jnp.where(state.mean > 0, moved, norm)
        clipped = jnp.minimum(norm, multiple * mean)
        grads = optax.tree.scale(clipped / jnp.maximum(norm, 1e-30), grads)
        return grads, RunningNorm(mean)

    return optax.GradientTransformation(init, update)


class FieldRules(NamedTuple):
    """An optax transformation of `DistilledSet`s and the names of the learned fields.

    Attributes:
      init: distilled set -> state of the optimizer.
      update: (gradients, state, set) -> updates and state.
      learned: names of the learned fields.
    """

    init: Callable[[Any], optax.OptState]
    update: Callable[..., tuple[Any, optax.OptState]]
    learned: tuple[str, ...]


def per_field(
    images: optax.GradientTransformation | None = None,
    label_logits: optax.GradientTransformation | None = None,
    log_lr: optax.GradientTransformation | None = None,
    *,
    clip: float | optax.GradientTransformation | None = None,
) -> FieldRules:
    """Returns an optimizer with a separate rule for each field of a `DistilledSet`.

    A field without a rule is not learned: its gradient is not computed and does not count
    in the norm.

    >>> import optax
    >>> rules = outer.per_field(optax.adam(0.1), log_lr=optax.sgd(0.01), clip=1.0)

    Args:
      images: rule for the images.
      label_logits: rule for the label logits.
      log_lr: rule for the log of the inner learning rate.
      clip: maximum norm of the gradient over all learned fields, or a clipping
        transformation such as `clip_by_running_norm`; None for no clipping.
    """
    given = dict(zip(DistilledSet._fields, (images, label_logits, log_lr), strict=True))
    fields: Any = DistilledSet._fields
    rules = optax.partition(
        {name: rule or optax.set_to_zero() for name, rule in given.items()},
        DistilledSet(*fields),
    )
    if clip is not None:
        limit = optax.clip_by_global_norm(clip) if isinstance(clip, int | float) else clip
        rules = optax.chain(limit, rules)
    return FieldRules(rules.init, rules.update, tuple(n for n in given if given[n]))


def method_rules(
    method: str,
    optimizers: Optimizers | None,
    *,
    clip: float | optax.GradientTransformation | None = None,
    **described: Descent,
) -> FieldRules:
    """Returns the rules of a method: those of the caller, else those that it describes.

    >>> import optax
    >>> rules = outer.method_rules("mine", None, images=outer.Descent("adam", 0.1))

    Args:
      method: name of the method, for messages.
      optimizers: of the caller.
      clip: as in `per_field`.
      **described: field -> optimizer; a field that is absent has no part in the outer loss
        of the method.

    Raises:
      InputError: an optimizer that is neither a transformation nor a schedule, or that is
        of a field which the outer loss does not depend on.
    """
    given = Optimizers() if optimizers is None else optimizers
    if not isinstance(given, Optimizers):
        raise InputError(
            f"optimizers is a {type(given).__name__}; give Optimizers(images=...)"
        )
    rules = {name: one.optimizer() for name, one in described.items()}
    for name, own in given._asdict().items():
        if own is None:
            continue
        if name not in described:
            raise InputError(
                f"optimizers.{name}: the outer loss of {method} does not depend on "
                f"{name}; leave it out"
            )
        if isinstance(own, optax.GradientTransformation):
            rules[name] = own
        elif callable(own):
            rules[name] = described[name]._replace(learning_rate=own).optimizer()
        else:
            raise InputError(
                f"optimizers.{name}={own!r:.40}: give an optax transformation such as "
                "optax.adam(0.1), or a schedule such as "
                "optax.cosine_decay_schedule(0.1, 100)"
            )
    return per_field(**rules, clip=clip)


def from_outer_loss(
    outer_loss: OuterLoss,
    optimizer: FieldRules | optax.GradientTransformation,
    init_aux: Callable[[Key], Any] = lambda key: (),
    *,
    after: After | None = None,
    skip_above: float | None = None,
    lr_range: tuple[float, float] | None = None,
    parametrisation: Parametrisation = DIRECT,
    check: Callable[[Key, DistilledSet], None] | None = None,
    check_source: Callable[[Source], None] = lambda source: None,
) -> Method:
    """Returns a method that minimises an outer loss with respect to the distilled set.

    >>> import optax
    >>> from distilljax.core import distilled
    >>> def outer_loss(made, key, aux, source):
    ...     return jnp.mean((made.images - source) ** 2), aux
    ...
    >>> method = outer.from_outer_loss(outer_loss, outer.per_field(optax.sgd(1.0)))
    >>> images = jnp.zeros((2, 8, 8, 1))
    >>> start = distilled.create(images, np.array([0, 1]), 2, learning_rate=0.1)
    >>> key = jax.random.key(0)
    >>> state, info = method.step(key, method.init(key, start), jnp.ones((2, 8, 8, 1)))
    >>> float(info.loss)
    1.0

    Args:
      outer_loss: (distilled, key, aux, source) -> (f32[], aux); the loss is differentiated
        with respect to the learned fields.
      optimizer: `per_field` rules, or an optax transformation that learns all fields.
      init_aux: key -> aux before the first step.
      after: (distilled, key, aux, source) -> aux, called with the updated set and the aux
        of the outer loss, for example to train a network on the new set.
      skip_above: a step with a larger outer loss leaves set and optimizer unchanged; NaN is
        not skipped. None for no limit.
      lr_range: minimum and maximum inner learning rate; updates are projected onto it. A
        rate that is not learned is left as it is. None for no limit.
      parametrisation: how the set is stored; its code is learned.
      check: (key, distilled) -> None, called first by `init`; raises `InputError` for a set
        that the method cannot learn.
      check_source: see `Method`.

    Returns:
      A `Method` whose step takes no host input but a key, so that it works in a Python
      loop, in a `lax.scan` over outer steps and under a `vmap` over sets.

    Raises:
      InputError: when stepped, an optimizer that needs more than gradients, such as a line
        search.
    """
    checks.instance(
        parametrisation,
        Parametrisation,
        "parametrisation",
        "one that make of a module of distilljax.core.parametrisations returns",
    )
    learned = getattr(optimizer, "learned", DistilledSet._fields)

    def decoded_loss(
        stored: DistilledSet, key: Key, aux: Any, source: Source
    ) -> tuple[Array, Any]:
        constant = {
            name: jax.lax.stop_gradient(value)
            for name, value in stored._asdict().items()
            if name not in learned
        }
        distilled = parametrisation.decode(stored._replace(**constant))
        return outer_loss(distilled, key, aux, source)

    def init(key: Key, distilled: DistilledSet) -> OuterState:
        checks.one_key(key)
        checks.distilled_set(distilled)
        if check is not None:
            check(key, distilled)
        if isinstance(optimizer, FieldRules) and "label_logits" in learned:
            checks.learnable_labels(distilled)
        _check_number(parametrisation, distilled)
        stored = parametrisation.encode(distilled)
        state = OuterState(
            stored, optimizer.init(stored), init_aux(key), jnp.zeros((), jnp.int32)
        )
        return varying.alike(jax.tree.map(_strong, state))

    def step(key: Key, state: OuterState, source: Source) -> tuple[OuterState, StepInfo]:
        checks.one_key(key)
        checks.instance(
            state, OuterState, "state", "that of init(key, distilled) or of a step before"
        )
        (loss, aux), grads = varying.value_and_grad(decoded_loss, has_aux=True)(
            state.distilled, key, state.aux, source
        )
        with checks.plain_updates("an outer step"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.distilled)
        distilled = optax.apply_updates(state.distilled, updates)
        if lr_range is not None and "log_lr" in learned:
            low, high = (math.log(rate) for rate in lr_range)
            distilled = distilled._replace(log_lr=jnp.clip(distilled.log_lr, low, high))
        if skip_above is not None:
            kept = (state.distilled, state.opt_state)
            distilled, opt_state = jax.tree.map(
                lambda new, old: jnp.where(loss > skip_above, old, new),
                (distilled, opt_state),
                kept,
            )
        if after is not None:
            aux = after(parametrisation.decode(distilled), key, aux, source)
        info = StepInfo(loss, optax.tree.norm(grads), jnp.exp(state.distilled.log_lr))
        return varying.alike(OuterState(distilled, opt_state, aux, state.step + 1)), info

    return Method(init, step, parametrisation.decode, check_source)


def _check_number(parametrisation: Parametrisation, distilled: DistilledSet) -> None:
    per_class = parametrisation.images_per_class
    num, k = distilled.label_logits.shape
    if per_class is not None and num != k * per_class:
        raise InputError(
            f"the distilled set has {num} images of {k} classes, and the parametrisation "
            f"takes {per_class} of each class; start with {k * per_class}"
        )


def _strong(x: Any) -> Array:
    """Makes weakly typed leaves strong: otherwise the second step would recompile."""
    x = jnp.asarray(x)
    return jax.lax.convert_element_type(x, x.dtype)
