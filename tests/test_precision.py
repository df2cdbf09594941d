"""JAX_ENABLE_X64: the same numbers as without, and state in the dtypes of its inputs."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax import data, loop
from distilljax.core import distilled as distilled_set
from distilljax.core import parameters
from distilljax.core.parameters import Trajectories
from distilljax.curvature import hessian, influence
from distilljax.methods import METHODS, bptt, dm, gm, kernel, tm
from distilljax.models import convnet
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from tests.conftest import striped_images

CONFIGS = {
    "bptt": bptt.Config(
        unroll=4, window=2, random_window=True, inner_batch=3, real_batch=12, lr_lr=0.01,
        clip_running=True, augment="color_flip",
    ),
    "gm": gm.Config(real_batch=5, outer_loop=3, augment="color_crop_scale"),
    "dm": dm.Config(real_batch=5),
    "tm": tm.Config(student_steps=2, expert_epochs=1, max_start=2, image_lr=1.0),
    "kernel": kernel.Config(pool=2, max_age=3, real_batch=12, cosine_steps=5),
}  # fmt: skip


def numbers(names):
    """What these methods, the loop, evaluation and influence give, as nested lists."""
    split = striped_images(6)
    transform = data.fit("normalise", split.images)
    real = data.on_device(split, transform, 3)
    model = convnet.make(convnet.Config(width=4, depth=1), (8, 8, 1), 3)
    start = distilled_set.create(
        transform(jnp.asarray(split.images[::3])), np.repeat(np.arange(3), 2), 3,
        learning_rate=0.05,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    walk = rng.normal(size=(2, 5, parameters.num_params(model))).cumsum(1).astype("float32")
    sources = {"real": real, "experts": Trajectories(jnp.asarray(walk), jnp.int32(0))}
    found, key = {}, jax.random.key(1)
    for name in names:
        method = METHODS[name].make(CONFIGS[name], model)
        before = method.init(key, start)
        after, info = jax.jit(method.step)(key, before, sources[METHODS[name].SOURCE])
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            assert a.dtype == b.dtype, name
        found[name] = [*info, after.distilled.images, after.distilled.log_lr]

    def score(key, distilled, test):
        batch = distilled_set.as_batch(distilled)
        keys = jax.random.split(key, 2)
        return evaluation.fresh_accuracy(
            keys, model, batch, test, EvaluationProtocol(steps=3, batch=3, augment="flip")
        ).mean()

    method = METHODS["bptt"].make(CONFIGS["bptt"], model)
    ended = loop.run(method, start, real, key, num_steps=2, score=score, score_source=real)
    found["loop"] = [ended.last.images, ended.best_score]
    batch = distilled_set.as_batch(start)
    params = evaluation.train(key, model, batch, EvaluationProtocol(steps=5))
    found["train"] = jax.tree.leaves(params)
    found["predict"] = [evaluation.predict(model.apply, params, real)]
    found["accuracy"] = [
        evaluation.fresh_accuracy(
            jax.random.split(key, 3), model, batch, real, evaluation.PROTOCOLS["study"]
        )
    ]

    def losses(params, data):
        logits = model.apply(params, data.images)
        return optax.losses.softmax_cross_entropy(logits, data.labels)

    found["influence"] = [
        influence.influence_function(
            hessian.ggn(model.apply, params, batch), losses, params, batch, losses, batch,
            damping=0.5, positions=[0, 4],
        ).changes
    ]  # fmt: skip
    return {name: [np.asarray(x).tolist() for x in xs] for name, xs in found.items()}


@pytest.mark.slow
def test_double_precision_at_hand_changes_no_number():
    names = [*CONFIGS]
    script = (
        "import json; from tests import test_precision as t; "
        f"print(json.dumps(t.numbers({names})))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    wide, expected = json.loads(ran.stdout.splitlines()[-1]), numbers(names)
    assert wide.keys() == expected.keys()
    for name, values in expected.items():
        for found, value in zip(wide[name], values, strict=True):
            scale = np.abs(value).max()
            np.testing.assert_allclose(
                found, value, rtol=1e-3, atol=2e-5 * scale, err_msg=name
            )
