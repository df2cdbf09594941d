"""Every preset, architecture and probe is lowered for GPU and TPU, and written to a file.

Sizes are tiny, settings otherwise those of the papers; nothing runs.
"""

import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.core import distilled, parameters
from distilljax.core.parameters import Trajectories
from distilljax.methods import METHODS
from distilljax.models import MODELS
from distilljax.probes import PROBES, Point
from distilljax.training import evaluation
from distilljax.training.protocols import PROTOCOLS
from experiments.distill.presets import BY_METHOD

PLATFORMS = ("cuda", "tpu")
SHAPE, CLASSES = (32, 32, 3), 10
# What makes a preset large: unrolls and batches; the structure of its program stays.
SMALL = {
    "unroll": 3, "window": 2, "real_batch": 4, "inner_batch": 10, "student_steps": 2,
    "student_batch": 10, "expert_epochs": 1, "max_start": 1, "min_start": 0,
    "first_max_start": 0, "network_batch": 10, "inner_loop": 1,
}  # fmt: skip
NARROW = {
    "convnet": {"width": 4},
    "mlp": {"width": 4},
    "resnet": {"width": 4},
    "alexnet": {"width": 4},
    "vgg": {"width": 4},
}


def of(value):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), value)


def exported(function, *args):
    """Exports for both platforms, written and read again."""
    program = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*of(args))
    assert program.platforms == PLATFORMS
    again = jax.export.deserialize(program.serialize())
    assert again.platforms == PLATFORMS
    assert again.in_tree == program.in_tree
    assert again.out_tree == program.out_tree


def model_of(name="convnet"):
    fields = {field.name for field in dataclasses.fields(MODELS[name].Config)}
    small = {key: value for key, value in NARROW[name].items() if key in fields}
    return MODELS[name].make(MODELS[name].Config(**small), SHAPE, CLASSES)


@pytest.fixture(scope="module")
def real():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), 4)
    images = rng.integers(0, 256, (len(labels), *SHAPE)).astype(np.uint8)
    return data.on_device(
        data.Split(images, labels), data.fit("normalise", images), CLASSES
    )


@pytest.fixture(scope="module")
def start():
    images = jnp.zeros((2 * CLASSES, *SHAPE))
    labels = np.repeat(np.arange(CLASSES), 2)
    return distilled.create(images, labels, CLASSES, learning_rate=0.01, confidence=0.9)


def small(config):
    fields = {
        field.name: getattr(config, field.name) for field in dataclasses.fields(config)
    }
    changed = {key: value for key, value in SMALL.items() if fields.get(key) is not None}
    if fields.get("outer_loop") == 1:
        changed.pop("inner_loop", None)
    if fields.get("window") == fields.get("unroll"):
        changed.pop("window", None)
    if fields.get("adapt"):
        changed["adapt"] = 1
    return config.replace(changed)


def distinct():
    """Presets whose programs differ: one for each small configuration."""
    found = {}
    for method, presets in BY_METHOD.items():
        for name, preset in presets.items():
            found.setdefault((method, small(preset.settings)), f"{method}-{name}")
    return {name: key for key, name in found.items()}


def presets():
    """Every preset; all but the first of each method and kernel take longer in sum."""
    seen = set()
    for name, (method, config) in distinct().items():
        kind = method, getattr(config, "kernel", None)
        yield pytest.param(name, marks=[pytest.mark.slow] if kind in seen else [])
        seen.add(kind)


@pytest.mark.parametrize("name", list(presets()))
def test_presets(name, real, start):
    method, config = distinct()[name]
    model = model_of()
    made = METHODS[method].make(config, model)
    source = real
    if METHODS[method].SOURCE == "experts":
        shape = (2, config.last_epoch + 1, parameters.num_params(model))
        source = Trajectories(jnp.zeros(shape), jnp.int32(0))
    key = jax.random.key(0)
    state = jax.eval_shape(made.init, key, start)
    exported(made.step, key, state, source)


@pytest.mark.parametrize("name", MODELS)
def test_architectures(name, start):
    protocol = dataclasses.replace(PROTOCOLS["study"], steps=2)
    model, batch = model_of(name), distilled.as_batch(start)

    def train(key, batch):
        return evaluation.train(key, model, batch, protocol)

    exported(train, jax.random.key(0), batch)


@pytest.mark.parametrize("name", PROBES)
def test_probes(name, real):
    model = model_of()
    probe = PROBES[name].make(PROBES[name].Config(), model)
    source, reference = probe.select(real, real)
    key, params = jax.random.key(0), jax.eval_shape(model.init, jax.random.key(0))
    point = Point(params, jnp.float32(1))
    state = jax.eval_shape(probe.init, key, point, source, reference)
    exported(probe.measure, key, state, point, source, reference)
