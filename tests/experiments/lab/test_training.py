"""The trainer: networks are those of a plain loop, and survive a kill and damage."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax import data
from distilljax.core import losses, parameters, sampling
from distilljax.models import mlp
from distilljax.training import expert
from distilljax.training.expert import Recipe
from distilljax.types import Batch, InputError
from experiments.lab import training
from experiments.lab.kept import Arrays
from experiments.lab.keys import fresh_key
from experiments.lab.networks import map_chunks, scaled_network, sized_model
from tests.experiments.lab.damage import DAMAGES, mended_line

RECIPE = Recipe(momentum=0.9, batch=30, lr=0.02, augment="")


@pytest.fixture(scope="module")
def real(dataset):
    """(data, transform, training images on the device)."""
    loaded = data.load(str(dataset))
    transform = data.fit("normalise", loaded.train.images)
    return loaded, transform, data.on_device(loaded.train, transform, 3)


def nets(real, num=2, epochs=3):
    network = scaled_network("mlp", 0.05)
    planned = [
        training.plan_net(*real[:2], network, RECIPE, epochs, 0, number)
        for number in range(num)
    ]
    return [net._replace(file=f"net{net.number}") for net in planned]


def train(folder, real, planned):
    models = {"mlp": sized_model(planned[0].network, real[0])}
    trainer = training.EpochTrainer(Arrays(folder), RECIPE, 0)
    trainer.train(planned, models, real[2])
    return [trainer.trained(net) for net in planned]


@pytest.fixture(scope="module")
def trained(real, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    return folder, train(folder, real, nets(real))


def test_epochs_are_those_of_the_core(trained, real):
    model, key = mlp.make(mlp.Config(width=6), (8, 8, 1), 3), fresh_key(0)
    advance = jax.jit(lambda key, state: expert.epoch(key, model, real[2], RECIPE, state))
    for number, found in enumerate(trained[1]):
        state = expert.init(expert.epoch_key(key, number, 0), model, RECIPE)
        values = []
        for epoch in (1, 2, 3):
            state, loss = advance(expert.epoch_key(key, number, epoch), state)
            values.append(float(loss))
        expected = parameters.flatten(state.params)
        np.testing.assert_allclose(found.params, expected, atol=1e-6)
        np.testing.assert_allclose(found.losses, values, rtol=1e-5)
        assert (found.epoch, found.optimizer.size) == (3, 0)
        assert values[-1] < values[0]


def test_identities_hold_all_that_a_network_depends_on(real):
    loaded, transform, _ = real
    network = scaled_network("mlp", 0.05)
    other = data.fit("none", loaded.train.images)
    given = [
        (loaded, transform, network, RECIPE, 3, 0, 0),
        (loaded._replace(fingerprint="x"), transform, network, RECIPE, 3, 0, 0),
        (loaded, other, network, RECIPE, 3, 0, 0),
        (loaded, transform, scaled_network("mlp", 0.1), RECIPE, 3, 0, 0),
        (loaded, transform, network, RECIPE.replace({"lr": 0.1}), 3, 0, 0),
        (loaded, transform, network, RECIPE, 4, 0, 0),
        (loaded, transform, network, RECIPE, 3, 1, 0),
        (loaded, transform, network, RECIPE, 3, 0, 1),
    ]
    assert len({training.plan_net(*one).identity for one in given}) == len(given)


class Killed(BaseException):
    pass


def dies_after(monkeypatch, number):
    """Ends the process, so to speak, after so many pieces are written."""
    write, count = Arrays.write, itertools.count(1)

    def writing(*args, **arrays):
        write(*args, **arrays)
        if next(count) == number:
            raise Killed

    monkeypatch.setattr(Arrays, "write", writing)


def test_killed_and_resumed_it_is_the_same(trained, real, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", 0.0)
    with monkeypatch.context() as patched:
        dies_after(patched, 5)  # after epoch 2 of the second network
        with pytest.raises(Killed):
            train(tmp_path, real, nets(real))
    found = train(tmp_path, real, nets(real))
    said = capsys.readouterr()
    assert "1 of 2 networks were trained before" in said.out
    assert "mlp 1 goes on after epoch 2" in said.out
    assert "network 1/1  epoch 1/1" in said.err
    for ours, theirs in zip(found, trained[1], strict=True):
        for name in ("params", "losses", "optimizer"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_trained_network_is_not_trained_again(trained, real, monkeypatch, capsys):
    def refuse(*_):
        raise AssertionError("a network is trained")

    monkeypatch.setattr(training, "_epoch_programs", refuse)
    found = train(trained[0], real, nets(real))
    np.testing.assert_array_equal(found[1].params, trained[1][1].params)
    assert "2 of 2 networks were trained before" in capsys.readouterr().out


def test_a_file_that_changes_meanwhile_is_told(trained, real, tmp_path, capsys):
    trainer = training.EpochTrainer(Arrays(tmp_path), RECIPE, 0)
    with pytest.raises(InputError, match=r"net0\.npz was changed while .* run it again"):
        trainer.trained(nets(real)[0])


def test_epochs_that_diverge_are_refused(real, tmp_path):
    wild = RECIPE.replace({"lr": 1e38})
    net = training.plan_net(*real[:2], scaled_network("mlp", 0.05), wild, 2, 0)
    trainer = training.EpochTrainer(Arrays(tmp_path), wild, 0)
    model = sized_model(net.network, real[0])
    message = "training of mlp 0 diverged at epoch 1, its training loss is nan; lower --rec"
    with pytest.raises(InputError, match=message):
        trainer.train([net], {"mlp": model}, real[2])
    assert not list(tmp_path.iterdir())


# --- trajectories ------------------------------------------------------------------------

MODEL = mlp.make(mlp.Config(width=6, depth=1), (8, 8, 1), 3)
AT = (0, 1, 4, 7)


def descent(**changes):
    return training.Descent(7, 0.05, 0.9, 20, 3)._replace(**changes)


def trajectories(folder, on, numbers=(0, 1), how=None, identity="set"):
    how = how or descent()
    trainer = training.TrajectoryTrainer(Arrays(folder), identity, MODEL, on, how, AT)
    trainer.train(numbers)
    return {number: trainer.trained(number) for number in numbers}


@pytest.fixture(scope="module")
def followed(real, tmp_path_factory):
    folder = tmp_path_factory.mktemp("followed")
    return folder, trajectories(folder, real[2])


def by_hand(number, batch_of, num, size, how):
    """A loop of optax steps."""
    init_key, order_key = jax.random.split(jax.random.fold_in(fresh_key(3), number))
    positions = sampling.epochs(order_key, num, size, how.iterations)
    rule = optax.sgd(how.learning_rate, momentum=how.momentum)
    params = MODEL.init(init_key)
    state, found = rule.init(params), [parameters.flatten(params)]
    for i in range(how.iterations):
        grads = jax.grad(losses.cross_entropy(MODEL.apply))(params, batch_of(positions[i]))
        updates, state = rule.update(grads, state)
        params = optax.apply_updates(params, updates)
        if i + 1 in AT:
            found.append(parameters.flatten(params))
    return np.stack(found)


def test_trajectories_on_real_images_are_those_of_a_plain_loop(followed, real):
    on = real[2]
    for number, found in followed[1].items():
        expected = by_hand(number, lambda at: sampling.take(on, at), 120, 20, descent())
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(followed[1][0][0], followed[1][1][0])


def test_a_distilled_set_is_taken_whole(real, tmp_path):
    batch = sampling.take(real[2], jnp.arange(9))
    assert isinstance(batch, Batch)
    found = trajectories(tmp_path, batch, [0], descent(batch=4))[0]
    expected = by_hand(0, lambda _: batch, 9, 4, descent())
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_trajectories_are_trained_again(followed, real, tmp_path, kind, capsys):
    folder, expected = followed
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    DAMAGES[kind](tmp_path / "run0.npz", tmp_path / "run1.npz")
    stamp = (tmp_path / "run1.npz").stat().st_mtime_ns
    found = trajectories(tmp_path, real[2])
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert (tmp_path / "run1.npz").stat().st_mtime_ns == stamp
    err = capsys.readouterr().err
    assert mended_line(err, tmp_path / "run0.npz")
    assert ("computed again" in err) == (kind != "deleted")


def test_trajectories_of_other_settings_are_others(followed, real, tmp_path, capsys):
    for file in followed[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    trajectories(tmp_path, real[2], [0], identity="another")
    assert "holds another piece; computed again" in capsys.readouterr().err
    trajectories(tmp_path, real[2], [1], descent(learning_rate=0.01))
    assert "holds another piece; computed again" in capsys.readouterr().err


def test_trajectories_that_diverge_are_refused(real, tmp_path):
    message = "training of run 0 diverged between iterations . and .; lower --lr"
    with pytest.raises(InputError, match=message):
        trajectories(tmp_path, real[2], [0], descent(learning_rate=1e30))
    with pytest.raises(InputError, match=r"run0\.npz was changed while"):
        training.TrajectoryTrainer(
            Arrays(tmp_path), "set", MODEL, real[2], descent(), AT
        ).trained(0)


@pytest.mark.parametrize("num", [3, 4, 9])
def test_chunks_give_what_the_whole_does(num):
    images = np.arange(num * 8, dtype=np.float32).reshape(num, 2, 2, 2)
    shapes = []

    def compute(part):
        shapes.append(part.shape)
        return {"sum": part.sum(axis=(1, 2, 3)), "twice": (2 * jnp.asarray(part),)}

    found = map_chunks(compute, images, 4)
    assert set(shapes) == {(4, 2, 2, 2)}
    np.testing.assert_array_equal(found["sum"], images.sum(axis=(1, 2, 3)))
    np.testing.assert_array_equal(found["twice"][0], 2 * images)
