"""The loop: dispatches, selection, resume, divergence."""

import itertools
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distilljax import loop
from distilljax.core import distilled as distilled_set
from distilljax.core.outer import Method, OuterState, StepInfo, from_outer_loss, per_field
from distilljax.io import Checkpoints
from distilljax.methods import METHODS, bptt

NUM_STEPS = 23


def toy(loss_of_step=None):
    """Descends (mean image - noise)^2, or shows the loss that is asked for."""

    def outer_loss(distilled, key, aux, source):
        gap = distilled.images.mean() - source - 0.1 * jax.random.normal(key)
        loss = gap**2
        if loss_of_step is not None:
            asked = loss_of_step(aux)
            loss = loss - jax.lax.stop_gradient(loss) + asked
        return loss, aux + 1

    return from_outer_loss(
        outer_loss,
        per_field(images=optax.adam(0.05)),
        lambda key: jnp.zeros((), jnp.int32),
    )


@pytest.fixture
def start():
    images = jax.random.normal(jax.random.key(1), (3, 2, 2, 1))
    return distilled_set.create(images, jnp.arange(3), 3, learning_rate=0.1)


def mean_score(key, distilled, source):
    return -jnp.abs(distilled.images.mean() - source)


def run(start, method=None, **options):
    history = []
    settings = {
        "num_steps": NUM_STEPS,
        "score": mean_score,
        "score_source": jnp.asarray(1.0),
        "score_every": 5,
        "on_records": history.extend,
    } | options
    result = loop.run(
        method or toy(), start, jnp.asarray(2.0), jax.random.key(3), **settings
    )
    return result, history


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_is_a_plain_loop_over_steps(start):
    """Compared with calling the method's step one by one."""
    result, history = run(start)
    init_key, step_key, _ = jax.random.split(jax.random.key(3), 3)
    method = toy()
    state, step = method.init(init_key, start), jax.jit(method.step)
    scores = {}
    for t in range(NUM_STEPS):
        state, info = step(jax.random.fold_in(step_key, t), state, jnp.asarray(2.0))
        np.testing.assert_allclose(history[t]["loss"], info.loss, rtol=1e-5)
        np.testing.assert_allclose(history[t]["grad_norm"], info.grad_norm, rtol=1e-5)
        if (t + 1) % 5 == 0 or t + 1 == NUM_STEPS:
            scores[t + 1] = float(-jnp.abs(state.distilled.images.mean() - 1.0))
            np.testing.assert_allclose(history[t]["score"], scores[t + 1], rtol=1e-4)
        else:
            assert "score" not in history[t]
    np.testing.assert_allclose(
        result.last.images, state.distilled.images, rtol=1e-5, atol=1e-6
    )
    assert [record["step"] for record in history] == list(range(1, NUM_STEPS + 1))
    best = max(scores, key=scores.get)
    assert result.best_step == best
    np.testing.assert_allclose(result.best_score, scores[best], rtol=1e-4)
    assert best < NUM_STEPS, "the toy overshoots, so that selection has something to do"
    np.testing.assert_allclose(result.best.images.mean(), 1.0, atol=-scores[best] + 1e-5)


@pytest.mark.parametrize("seconds", [1e-9, 1e-3, 100.0])
def test_the_size_of_a_dispatch_changes_nothing(start, seconds):
    reference, expected = run(start)
    result, history = run(start, seconds_per_dispatch=seconds)
    assert_same(result.last, reference.last)
    assert_same(result.best, reference.best)
    assert history == expected


def test_compiles_once_and_sees_no_constants(start):
    traces = itertools.count()

    def counted(key, state, source):
        next(traces)
        return toy().step(key, state, source)

    run(start, Method(toy().init, counted), seconds_per_dispatch=1e-4)
    assert next(traces) == 1


@pytest.mark.parametrize("score_every", [5, 1])
def test_the_first_step_is_told_before_the_score_is_traced(start, score_every):
    events = []

    def score(key, distilled, source):
        events.append("traced")
        return mean_score(key, distilled, source)

    run(
        start,
        score=score,
        score_every=score_every,
        on_progress=lambda progress: events.append(progress.step),
    )
    traced = events.index("traced")
    assert events[:traced] == ([1] if score_every > 1 else [])
    assert events.count("traced") == 1


def test_without_a_score_the_last_set_is_returned(start):
    result, history = run(start, score=None)
    assert_same(result.best, result.last)
    assert result.best_step == NUM_STEPS
    assert result.best_score is None
    assert not any("score" in record for record in history)


def stop_at(step):
    """Returns options that stop a run at a step, each by another callback."""

    def stop(*given):
        reached = given[0]
        if isinstance(reached, loop.Progress):
            reached = reached.step
        elif not isinstance(reached, int):
            reached = reached[-1]["step"]
        if reached >= step:
            raise loop.Stop

    return [{name: stop} for name in ("on_progress", "on_records", "on_best")]


@pytest.mark.parametrize("option", stop_at(10))
def test_a_callback_stops_the_run_and_its_result_is_kept(start, tmp_path, option):
    """The same as a run of so many steps; from its checkpoint it goes on as if uncut."""
    plain = {"seconds_per_dispatch": 1e-9, "score_every": 2}
    reference, _ = run(start, num_steps=10, **plain)
    first = Checkpoints(tmp_path)
    stopped, _ = run(start, checkpoints=first, **plain, **option)
    first.close()
    assert stopped.num_steps == reference.num_steps == 10
    assert_same(stopped.last, reference.last)
    assert_same(stopped.best, reference.best)
    assert stopped.best_step == reference.best_step

    whole, _ = run(start, **plain)
    second = Checkpoints(tmp_path)
    steps = []
    resumed, _ = run(start, checkpoints=second, on_resume=steps.append, **plain)
    second.close()
    assert steps == [10]
    assert_same(resumed.last, whole.last)
    assert_same(resumed.best, whole.best)


def test_progress_has_the_set_at_hand_and_is_a_line(start):
    seen = {}
    options = {"seconds_per_dispatch": 1e-9, "score_every": 4}
    run(start, on_progress=lambda p: seen.update({p.step: p}), **options)
    assert list(seen) == list(range(1, NUM_STEPS + 1))
    for step in (1, 4, NUM_STEPS):
        reference, _ = run(start, num_steps=step, **options)
        assert_same(seen[step].distilled, reference.last)
    assert seen[3].best is None
    assert_same(seen[NUM_STEPS].best, run(start, **options)[0].best)
    assert str(seen[1]).strip().startswith(f"1/{NUM_STEPS}  outer loss ")
    assert "score" not in str(seen[1])
    assert "  score -" in str(seen[4])


def test_a_diverged_run_is_no_result_even_if_a_callback_stops_it(start):
    def stop(records):
        raise loop.Stop

    bad = toy(lambda step: jnp.where(step == 0, jnp.nan, 1.0))
    with pytest.raises(loop.DivergedError):
        run(start, bad, on_records=stop)


class InterruptedRunError(Exception):
    """Stands for a process that ends without a chance to save."""


@pytest.mark.parametrize("cut", [1, 7, 16, 22])
def test_resumes_to_the_same_bits(start, tmp_path, cut):
    reference, expected = run(start)
    history, resumed = [], []

    def until_cut(records):
        history.extend(records)
        if history[-1]["step"] >= cut:
            raise InterruptedRunError

    options = {"seconds_per_dispatch": 1e-9, "checkpoint_seconds": 0.0}
    first = Checkpoints(tmp_path)
    with pytest.raises(InterruptedRunError):
        run(start, on_records=until_cut, checkpoints=first, **options)
    first.close()

    second = Checkpoints(tmp_path)
    latest = second.latest_step()
    result, rest = run(start, checkpoints=second, on_resume=resumed.append, **options)
    second.close()
    assert resumed == ([latest] if latest is not None else [])
    assert cut < 3 or latest is not None
    assert_same(result.last, reference.last)
    assert_same(result.best, reference.best)
    assert (result.best_step, result.best_score) == (
        reference.best_step,
        reference.best_score,
    )
    assert rest == expected[latest or 0 :]
    assert history[: latest or 0] == expected[: latest or 0]


def test_a_finished_run_resumes_to_its_end(start, tmp_path):
    for _ in range(2):
        checkpoints = Checkpoints(tmp_path)
        result, history = run(start, checkpoints=checkpoints)
        checkpoints.close()
    assert history == []
    reference = run(start)[0]
    assert_same(result.last, reference.last)
    # The best is that of the checkpoint: nothing is scored again.
    assert_same(result.best, reference.best)
    assert result.best_step == reference.best_step < result.num_steps
    assert result.best_score == reference.best_score


def test_an_interruption_while_waiting_loses_no_record(start, tmp_path, monkeypatch):
    """Most of the time a run waits for the device: there Ctrl-C arrives."""
    checkpoints, history, waits = Checkpoints(tmp_path), [], itertools.count(1)
    device_get = jax.device_get

    def interrupted(values):
        if next(waits) == 4:
            raise KeyboardInterrupt
        return device_get(values)

    monkeypatch.setattr(jax, "device_get", interrupted)
    options = {"seconds_per_dispatch": 1e-9, "on_records": history.extend}
    with pytest.raises(KeyboardInterrupt):
        run(start, checkpoints=checkpoints, **options)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert [record["step"] for record in history] == list(range(1, again.latest_step() + 1))
    run(start, checkpoints=again, **options)
    again.close()
    assert history == run(start)[1]


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises KeyboardInterrupt; a shell has its background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interruption_saves_first(start, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    steps = itertools.count(1)

    def interrupt(progress):
        if next(steps) == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(
            start,
            checkpoints=checkpoints,
            on_progress=interrupt,
            seconds_per_dispatch=1e-9,
            checkpoint_seconds=1e9,
        )
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert again.latest_step() >= 3
    result, _ = run(start, checkpoints=again)
    again.close()
    assert_same(result.last, run(start)[0].last)


def test_a_callback_that_stops_an_interrupted_run_leaves_it_interrupted(start, tmp_path):
    """What was dispatched is read before a checkpoint is written; a callback sees it."""

    def callback(progress):
        if progress.step == 3:
            raise KeyboardInterrupt
        if progress.step == 4:
            raise loop.Stop

    checkpoints = Checkpoints(tmp_path)
    options = {"seconds_per_dispatch": 1e-9, "checkpoint_seconds": 1e9}
    with pytest.raises(KeyboardInterrupt):
        run(start, checkpoints=checkpoints, on_progress=callback, **options)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert again.latest_step() == 4
    result, _ = run(start, checkpoints=again)
    again.close()
    assert_same(result.last, run(start)[0].last)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (jnp.nan, "became nan at outer step 8"),
        (jnp.inf, "became inf at outer step 8"),
        (1e4, r"exploded to 1e\+04 \(it began at 1\) at outer step 8"),
    ],
)
def test_divergence_stops_with_the_last_good_set(start, tmp_path, bad, message):
    method = toy(lambda t: jnp.where(t == 7, bad, 1.0))
    good, _ = run(start, toy(lambda t: jnp.asarray(1.0)), num_steps=7)
    checkpoints, history = Checkpoints(tmp_path), []
    with pytest.raises(loop.DivergedError, match=message) as caught:
        run(
            start,
            method,
            checkpoints=checkpoints,
            checkpoint_seconds=0.0,
            on_records=history.extend,
        )
    checkpoints.close()
    assert caught.value.step == 8
    assert_same(caught.value.last_good, good.last)
    assert len(history) == 8
    again = Checkpoints(tmp_path)
    assert again.latest_step() is None or again.latest_step() <= 7
    again.close()


def test_a_loss_of_a_hundred_times_the_first_is_the_largest_that_goes_on(start):
    def spike(size):
        return toy(lambda t: jnp.where(t == 7, size, -1.0))  # a loss may be negative

    assert run(start, spike(100.0))[0].num_steps == NUM_STEPS
    with pytest.raises(loop.DivergedError, match=r"exploded to 100 \(it began at -1\)"):
        run(start, spike(100.25))


def test_a_gradient_that_is_not_finite_is_divergence(start):
    def step(key, state, source):
        factor = jnp.where(state.step == 4, jnp.nan, 1.0)
        moved = state.distilled._replace(images=state.distilled.images * factor)
        info = StepInfo(jnp.asarray(1.0), jnp.asarray(1.0), jnp.asarray(0.1))
        return OuterState(moved, state.opt_state, state.aux, state.step + 1), info

    with pytest.raises(loop.DivergedError, match="not finite at outer step 5") as caught:
        run(start, Method(toy().init, step))
    assert np.isfinite(caught.value.last_good.images).all()


def test_the_time_of_compiling_is_within_that_of_the_run(start):
    began = time.perf_counter()
    result, _ = run(start)
    assert 0 < result.compile_seconds < time.perf_counter() - began


def test_progress_counts_to_the_end(start):
    seen = []
    run(start, on_progress=seen.append, seconds_per_dispatch=1e-9)
    assert [progress.step for progress in seen] == list(range(1, NUM_STEPS + 1))
    assert seen[-1].seconds_left == 0.0
    assert all(progress.steps_per_second > 0 for progress in seen)


def test_a_learning_rate_that_is_too_high_is_caught_in_a_real_method(problem):
    config = bptt.Config(unroll=4, real_batch=12, inner_lr=0.05, image_lr=1e30)
    with pytest.raises(loop.DivergedError, match="the outer loss"):
        loop.run(
            METHODS["bptt"].make(config, problem.model),
            problem.distilled,
            problem.real,
            jax.random.key(0),
            num_steps=30,
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_recording_doubles_no_record(start, tmp_path, number):
    """The signal comes after the records are written and before they are forgotten."""
    history = []

    def on_records(new):
        history.extend(new)
        if len(history) > 10 and len(history) - len(new) <= 10:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    signal.signal(number, signal.default_int_handler)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    try:
        with pytest.raises(KeyboardInterrupt):
            run(start, on_records=on_records, checkpoints=checkpoints)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    steps = [record["step"] for record in history]
    assert steps == list(range(1, len(steps) + 1))
    checkpoints.close()
    saved = Checkpoints(tmp_path / "checkpoints")
    assert saved.latest_step() == len(steps)
    saved.close()


def test_nothing_of_the_loop_is_a_nan_or_infinite(start):
    """JAX_DEBUG_NANS and JAX_DEBUG_INFS stop at the user's own values alone."""
    with jax.debug_nans(True), jax.debug_infs(True):
        result, history = run(start)
    assert len(history) == NUM_STEPS
    assert result.best_score is not None
