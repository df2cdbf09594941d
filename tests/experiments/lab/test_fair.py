"""Fair comparison with random images, and the scores of DD-Ranking."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distilljax import data
from distilljax.comparison import fair
from distilljax.comparison.accuracy import TRAINED_ON
from distilljax.comparison.real import random_subsets
from distilljax.core import distilled as distilled_set
from distilljax.models import mlp
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import Batch

SEEDS = 2
PLAIN = EvaluationProtocol(steps=3)
AUGMENTED = EvaluationProtocol(steps=3, augment="flip_scale")
SQUARED = EvaluationProtocol(steps=3, loss="squared_error", lr=0.001)


@pytest.fixture(scope="module")
def problem(dataset):
    loaded = data.load(str(dataset))
    transform = data.fit("normalise", loaded.train.images)
    chosen = data.subset(loaded.train, 2, 0)
    made = distilled_set.create(
        transform(jnp.asarray(chosen.images)),
        jnp.asarray(chosen.labels),
        3,
        learning_rate=0.05,
    )
    return fair.Problem(
        jax.random.key(1),
        jax.random.key(2),
        SEEDS,
        mlp.make(mlp.Config(width=8, depth=1), (8, 8, 1), 3),
        PLAIN,
        made,
        None,
        "own",
        {"random": random_subsets(loaded.train, 2, SEEDS, transform)},
        data.on_device(loaded.train, transform, 3),
        data.on_device(loaded.test, transform, 3),
        None,
    )


ALL = fair.Wanted(scores=True, whole_epochs=1, whole_seeds=2, expert_epochs=2)


def soft(problem):
    logits = problem.distilled.label_logits / 100
    return problem._replace(distilled=problem.distilled._replace(label_logits=logits))


def values(problem, batch, stacked=False, protocol=None):
    """By the library alone."""
    return evaluation.fresh_accuracy(
        jax.random.split(problem.key, SEEDS),
        problem.model,
        batch,
        problem.test,
        protocol or problem.protocol,
        learning_rate=0.05,
        stacked=stacked,
    )


def test_a_set_with_hard_labels_needs_no_more_networks(problem):
    found, scores = fair.measure_fairly(problem, ALL)
    assert list(found) == ["distilled", "random", "whole"]
    mean = {name: row["mean"] for name, row in found.items()}
    assert scores["ior"] == pytest.approx(mean["distilled"] - mean["random"])
    assert scores["hlr"] == pytest.approx(mean["whole"] - mean["distilled"])
    assert "expert" not in scores
    assert "ars" not in scores


def test_soft_labels_are_compared_with_labels_of_an_expert(problem):
    given = soft(problem)
    found, scores = fair.measure_fairly(given, ALL)
    wanted = ["distilled", "random", "distilled_hard", "random_expert", "whole"]
    assert list(found) == wanted
    assert set(wanted) <= set(TRAINED_ON)
    mean = {name: row["mean"] for name, row in found.items()}
    assert scores["ior"] == pytest.approx(mean["distilled"] - mean["random_expert"])
    assert scores["hlr"] == pytest.approx(mean["whole"] - mean["distilled_hard"])
    hard = Batch(given.distilled.images, jnp.eye(3)[jnp.repeat(jnp.arange(3), 2)])
    np.testing.assert_allclose(
        found["distilled_hard"]["values"], values(given, hard), atol=1e-6
    )
    recipe = dataclasses.replace(fair.WHOLE, epochs=2)
    params = evaluation.train(given.expert_key, given.model, given.train, recipe)
    random = given.baselines["random"]
    labels = jnp.stack(
        [jax.nn.softmax(given.model.apply(params, x)) for x in random.images]
    )
    np.testing.assert_allclose(
        found["random_expert"]["values"],
        values(given, Batch(random.images, labels), stacked=True),
        atol=1e-6,
    )
    logits = evaluation.predict(given.model.apply, params, given.test)
    right = (logits.argmax(1) == given.test.labels).mean()
    assert scores["expert"]["accuracy"] == pytest.approx(float(right), abs=1e-6)
    assert scores["expert"]["epochs"] == 2


def test_targets_under_a_squared_error(problem):
    """Random images have one-hot labels less 1/k, or the expert's probabilities less."""
    targets = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    given = problem._replace(targets=jnp.asarray(targets), protocol=SQUARED)
    found, _ = fair.measure_fairly(given, ALL._replace(whole_epochs=0))
    own = Batch(given.distilled.images, jnp.asarray(targets))
    np.testing.assert_allclose(found["distilled"]["values"], values(given, own), atol=1e-6)
    random = given.baselines["random"]
    less = random._replace(labels=random.labels - 1 / 3)
    np.testing.assert_allclose(
        found["random"]["values"], values(given, less, stacked=True), atol=1e-6
    )
    assert "random_expert" in found
    assert "distilled_hard" in found


def test_a_protocol_that_augments_is_tried_without(problem):
    given = problem._replace(protocol=AUGMENTED)
    found, scores = fair.measure_fairly(given, ALL._replace(whole_epochs=0))
    assert list(found) == ["distilled", "random", "distilled_plain", "random_plain"]
    own = distilled_set.as_batch(given.distilled)
    np.testing.assert_allclose(
        found["distilled_plain"]["values"], values(given, own, protocol=PLAIN), atol=1e-6
    )
    mean = {name: row["mean"] for name, row in found.items()}
    bare = mean["distilled_plain"] - mean["random_plain"]
    b = 0.5 * (mean["distilled"] - mean["random"]) + 0.5 * bare
    expected = 100 * (math.exp(b) - math.exp(-1)) / (math.e - math.exp(-1))
    assert scores["ars"] == pytest.approx(expected)
    assert "lrs" not in scores


def test_nothing_more_is_trained_without_scores_or_baselines(problem):
    given = soft(problem)._replace(protocol=AUGMENTED)
    nothing = fair.Wanted(False, 0, 2, 1)
    found, scores = fair.measure_fairly(given, nothing)
    assert list(found) == ["distilled", "random"]
    assert "ior" not in scores, "random images under hard labels are no fair comparison"
    found, scores = fair.measure_fairly(given._replace(baselines={}), nothing)
    assert list(found) == ["distilled"]
    assert scores == {"weight": 0.5}


def test_hard_labels_on_request(problem):
    given = soft(problem)._replace(labels="hard")
    found, scores = fair.measure_fairly(given, ALL)
    assert list(found) == ["distilled", "random", "whole"]
    assert "ior" in scores


@pytest.mark.parametrize(
    ("accuracy", "lrs"),
    [
        # IOR 0, HLR 0: a = 0.
        ({"distilled": 0.8, "random": 0.8, "whole": 0.8}, 26.894142),
        # IOR 1, HLR -1 and IOR -1, HLR 1: a = 1 and -1, the ends.
        ({"distilled": 1.0, "random": 0.0, "whole": 0.0}, 100.0),
        ({"distilled": 0.0, "random": 1.0, "whole": 1.0}, 0.0),
        # a = 0.5 * 0.13 - 0.5 * 0.4 = -0.135, by hand.
        ({"distilled": 0.4, "random": 0.27, "whole": 0.8}, 21.5213),
    ],
)
def test_the_label_robust_score(accuracy, lrs):
    assert fair.scores_of(accuracy, soft=False)["lrs"] == pytest.approx(lrs, abs=1e-4)


def test_scores_that_lack_a_network_are_absent():
    assert fair.scores_of({"distilled": 0.4}, soft=False) == {"weight": 0.5}
    assert "hlr" not in fair.scores_of({"distilled": 0.4, "whole": 0.8}, soft=True)
    assert fair.spelt_scores({"weight": 0.5}) == ""
    text = fair.spelt_scores({"weight": 0.5, "ior": 0.131, "lrs": 24.16})
    assert text == "DD-Ranking: IOR 13.1 points, LRS 24.2."
