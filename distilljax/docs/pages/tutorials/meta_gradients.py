"""Meta-gradients of anything.

[`inner.unroll`][distilljax.core.inner.unroll] trains a network, and is differentiable with
respect to all that it is given: what `sample_batch` closes over, the optimizer's learning
rate, the start. Three examples: a learning rate for each step, a weight for each training
example, the strength of an augmentation.
"""

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

from distilljax.core import inner

keys = jax.random.split(jax.random.key(0), 6)
true = jax.random.normal(keys[0], (8, 1))
noise = 0.1 * jax.random.normal(keys[1], (40, 1))
x = jax.random.normal(keys[2], (40, 8))
wrong = jnp.arange(40) < 10  # ten of forty targets have the wrong sign
y = (x @ true + noise) * jnp.where(wrong, -1, 1)[:, None]
new_x = jax.random.normal(keys[3], (200, 8))
held_out = new_x, new_x @ true
STEPS = 20


def loss_fn(weights, batch):
    x, y, importance = batch
    return jnp.mean(importance[:, None] * (x @ weights - y) ** 2)


def outer_loss(weights):
    return jnp.mean((held_out[0] @ weights - held_out[1]) ** 2)


def learn(loss, start, rate, steps=60):
    """Minimises a function of `start` with Adam; returns the end and the losses."""
    optimizer = optax.adam(rate)

    def step(carry, _):
        value, state = carry
        found, grad = jax.value_and_grad(loss)(value)
        updates, state = optimizer.update(grad, state)
        return (optax.apply_updates(value, updates), state), found

    (end, _), losses = jax.lax.scan(step, (start, optimizer.init(start)), None, steps)
    return end, losses


# %% [markdown]
# ## A weight for each example
#
# The batch closes over the weights. The gradient tells which examples harm the held-out
# loss.


# %%
def after_weighting(logits):
    rule, importance = optax.sgd(0.1), 2 * jax.nn.sigmoid(logits)
    state = inner.init(jnp.zeros((8, 1)), rule)
    state, _ = inner.unroll(
        loss_fn, rule, lambda _: (x, y, importance), state, jnp.arange(STEPS)
    )
    return outer_loss(state.params)


logits, by_weight = jax.jit(lambda start: learn(after_weighting, start, 0.2))(jnp.zeros(40))
importance = 2 * jax.nn.sigmoid(logits)
print(f"weights {importance[wrong].mean():.2f} of wrong, {importance[~wrong].mean():.2f}")
assert importance[wrong].mean() < 0.5 * importance[~wrong].mean()

# %% [markdown]
# It is exact: the same as a difference quotient along a random direction.

# %%
direction = jax.random.normal(keys[4], (40,))
slope = jnp.vdot(jax.grad(after_weighting)(jnp.zeros(40)), direction)
up, down = (after_weighting(sign * 1e-2 * direction) for sign in (1, -1))
assert abs(slope - (up - down) / 2e-2) < 1e-2 * abs(slope)

# %% [markdown]
# ## A learning rate for each step
#
# An optimizer is made inside `unroll`'s caller, so its rate may be traced: a schedule is an
# array, indexed by the count of the optimizer. On a quadratic loss the order of the steps
# does not matter, so that rates that begin equal would stay equal.


# %%
def after_schedule(log_rates):
    rule = optax.sgd(lambda count: jnp.exp(log_rates)[count])
    state = inner.init(jnp.zeros((8, 1)), rule)
    clean = x[10:], y[10:], jnp.ones(30)
    state, _ = inner.unroll(loss_fn, rule, lambda _: clean, state, jnp.arange(STEPS))
    return outer_loss(state.params)


start = jnp.log(jnp.linspace(0.02, 0.1, STEPS))
log_rates, by_rate = jax.jit(lambda start: learn(after_schedule, start, 0.1))(start)
assert by_rate[-1] < 0.5 * by_rate[0]

# %% [markdown]
# ## The strength of an augmentation
#
# The inputs of each step are keys. Noise on x, scaled by a learned value, acts as weight
# decay; the gradient finds that these targets are better learned without.


# %%
def after_noise(log_strength):
    rule = optax.sgd(0.1)
    state = inner.init(jnp.zeros((8, 1)), rule)

    def sample_batch(key):
        drawn = jax.random.normal(key, x.shape)
        return x + jnp.exp(log_strength) * drawn, y, jnp.ones(40)

    steps = jax.random.split(keys[5], STEPS)
    state, _ = inner.unroll(loss_fn, rule, sample_batch, state, steps)
    return jnp.mean((held_out[0] @ state.params - held_out[1]) ** 2)


log_strength, by_noise = jax.jit(lambda start: learn(after_noise, start, 0.1))(-2.0)
print(f"strength {jnp.exp(-2.0):.2f} -> {jnp.exp(log_strength):.2f}")

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
for name, losses in (
    ("weights", by_weight),
    ("rates", by_rate),
    ("augmentation", by_noise),
):
    left.semilogy(losses / losses[0], label=name)
left.set(xlabel="outer step", ylabel="held-out loss / start")
left.legend(loc="upper right", bbox_to_anchor=(1, 0.95))
middle.bar(jnp.arange(40), importance, color=["C3" if w else "C0" for w in wrong])
middle.set(xlabel="training example (red: wrong target)", ylabel="learned weight")
right.step(jnp.arange(STEPS), jnp.exp(log_rates), where="mid")
right.set(
    xlabel="inner step", ylabel="learned rate", ylim=(0, 1.1 * jnp.exp(log_rates).max())
)
figure.savefig("meta_gradients.png", dpi=120)

# %% [markdown]
# ![The held-out loss falls a thousandfold by weights, 25-fold by rates and by 1 % by the
# augmentation; most wrong targets lose their weight; the learned rate of each
# step](meta_gradients.png)
