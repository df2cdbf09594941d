"""The outer loop: many steps per dispatch, with metrics, checkpoints and resume.

The device program takes the number of steps as an argument, so that one compilation serves
every dispatch; the host reads the metrics of one dispatch while the next is running. The
randomness of a step depends on the key and the step number alone: a run interrupted
anywhere and resumed gives a bit-identical result, by the same jaxlib, on the same kind of
device and, on a CPU, with the same number of threads.
"""

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from distilljax import devices, exported, platforms, processes
from distilljax.core.outer import Method, OuterState, Source, StepInfo
from distilljax.io.checkpoints import Checkpoints
from distilljax.types import Array, DistilledSet, InputError, Key

MOST_STEPS_PER_DISPATCH = 1000
# A run stops when its outer loss exceeds this multiple of the first one.
EXPLOSION = 100.0
# Finite, so that JAX_DEBUG_NANS and JAX_DEBUG_INFS stop at the user's own values.
NO_SCORE = float(jnp.finfo(jnp.float32).min)

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)

Score = Callable[[Key, DistilledSet, Any], Array]  # higher is better, f32[]


@exported.named
class LoopState(NamedTuple):
    """State of a run, saved in checkpoints.

    Attributes:
      outer: state of the method.
      best: the set with the highest score so far, encoded.
      best_score: f32[], `NO_SCORE` before the first score.
      best_step: i32[], number of outer steps of `best`.
      first_loss: f32[], outer loss of the first step.
      healthy: bool[], whether all losses so far were finite and below the limit.
    """

    outer: OuterState
    best: DistilledSet
    best_score: Array
    best_step: Array
    first_loss: Array
    healthy: Array


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a run, reported after each dispatch; printed as one line.

    Attributes:
      step: outer steps taken.
      num_steps: outer steps of the whole run.
      loss: outer loss of the last step.
      score: the last score, such as held-out accuracy; None before the first.
      steps_per_second: mean speed since the run was started or resumed.
      seconds_left: estimate from that speed.
      state: state of the loop at this step.
      decode: encoded set -> set, see `Method.decode`.
    """

    step: int
    num_steps: int
    loss: float
    score: float | None
    steps_per_second: float
    seconds_left: float
    state: LoopState = dataclasses.field(repr=False)
    decode: Callable[[DistilledSet], DistilledSet] = dataclasses.field(repr=False)

    @property
    def distilled(self) -> DistilledSet:
        """The set at this step, decoded."""
        return self.decode(self.state.outer.distilled)

    @property
    def best(self) -> DistilledSet | None:
        """The set with the highest score so far, decoded; None before the first score."""
        scored = float(self.state.best_score) > NO_SCORE
        return self.decode(self.state.best) if scored else None

    def __str__(self) -> str:
        width = len(str(self.num_steps))
        score = "" if self.score is None else f"  score {self.score:#.4g}"
        return (
            f"{self.step:>{width}}/{self.num_steps}  outer loss {self.loss:#.4g}{score}  "
            f"{self.steps_per_second:#.3g} steps/s  {duration(self.seconds_left)} left"
        )


def duration(seconds: float) -> str:
    """Returns seconds as 42s, 3m05s or 2h07m.

    >>> from distilljax.loop import duration
    >>> duration(185)
    '3m05s'
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Stop(Exception):
    """Raised by a callback of `run` to end the run and keep its result.

    Of the example of `distil`:

        >>> def stop(progress):
        ...     if progress.loss < 1e9:
        ...         raise distilljax.Stop
        >>> short = distilljax.distil(
        ...     data, matching, mlp.Config(width=8), steps=4, on_progress=stop)
        >>> short.result.num_steps
        1
    """


class Result(NamedTuple):
    """Result of a run.

    Attributes:
      best: the set with the highest score; the last set without scores.
      best_step: outer steps that it had taken.
      best_score: its score; None without scores.
      last: the set after the last outer step.
      compile_seconds: time that the run waited for compilation.
      num_steps: outer steps taken, fewer than asked for where a callback stopped the run.
    """

    best: DistilledSet
    best_step: int
    best_score: float | None
    last: DistilledSet
    compile_seconds: float
    num_steps: int


class DivergedError(InputError):
    """The outer loss became NaN or too large; `last_good` is the set before that step."""

    def __init__(self, message: str, step: int, last_good: DistilledSet):
        super().__init__(message)
        self.step = step
        self.last_good = last_good


class _Dispatch(NamedTuple):
    """A dispatched block of outer steps, not yet fetched."""

    first_step: int
    num_steps: int
    infos: StepInfo  # f32[MOST_STEPS_PER_DISPATCH] each
    state: LoopState
    taken: Array  # i32[], number of steps taken
    score: Array | None


def init(key: Key, method: Method, distilled: DistilledSet) -> LoopState:
    """Returns the state before the first step.

    >>> import optax
    >>> from distilljax.core import distilled, outer
    >>> def outer_loss(made, key, aux, source):
    ...     return jnp.mean((made.images - source) ** 2), aux
    ...
    >>> method = outer.from_outer_loss(outer_loss, outer.per_field(optax.sgd(1.0)))
    >>> images = jnp.zeros((2, 8, 8, 1))
    >>> start = distilled.create(images, np.array([0, 1]), 2, learning_rate=0.1)
    >>> int(loop.init(jax.random.key(0), method, start).outer.step)
    0
    """
    # A copy: `outer` and `best` must not share a buffer.
    outer = method.init(key, distilled)
    best = jax.tree.map(jnp.copy, outer.distilled)
    return LoopState(
        outer,
        best,
        jnp.asarray(NO_SCORE, jnp.float32),
        jnp.asarray(0, jnp.int32),
        jnp.asarray(0.0, jnp.float32),
        jnp.asarray(True),
    )


def _advance(
    method: Method, key: Key, state: LoopState, source: Source, num_steps: Array
) -> tuple[LoopState, StepInfo, Array]:
    """Takes up to `num_steps` outer steps; stops at the first that is not healthy."""
    infos = StepInfo(*(jnp.zeros(MOST_STEPS_PER_DISPATCH) for _ in StepInfo._fields))

    def unfinished(carry: tuple[Array, LoopState, StepInfo]) -> Array:
        taken, state, _ = carry
        return (taken < num_steps) & state.healthy

    def body(
        carry: tuple[Array, LoopState, StepInfo],
    ) -> tuple[Array, LoopState, StepInfo]:
        taken, state, infos = carry
        step_key = jax.random.fold_in(key, state.outer.step)
        outer, info = method.step(step_key, state.outer, source)
        first = jnp.where(state.outer.step == 0, info.loss, state.first_loss)
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(outer.distilled)]
        healthy = jnp.isfinite(info.loss) & (info.loss <= EXPLOSION * jnp.abs(first))
        healthy &= jnp.stack(finite).all()
        outer = jax.tree.map(
            lambda new, old: jnp.where(healthy, new, old), outer, state.outer
        )
        infos = jax.tree.map(lambda row, value: row.at[taken].set(value), infos, info)
        state = state._replace(outer=outer, first_loss=first, healthy=healthy)
        return taken + 1, state, infos

    taken, state, infos = jax.lax.while_loop(
        unfinished, body, (jnp.asarray(0, jnp.int32), state, infos)
    )
    return state, infos, taken


def _select(
    method: Method, score: Score, key: Key, state: LoopState, source: Any
) -> tuple[LoopState, Array]:
    """Scores the distilled set and stores it if it is the best so far."""
    distilled = state.outer.distilled
    value = score(key, method.decode(distilled), source)
    better = value > state.best_score
    keep = jax.tree.map(lambda new, old: jnp.where(better, new, old), distilled, state.best)
    return state._replace(
        best=keep,
        best_score=jnp.where(better, value, state.best_score),
        best_step=jnp.where(better, state.outer.step, state.best_step),
    ), value


def run(
    method: Method,
    distilled: DistilledSet,
    source: Source,
    key: Key,
    *,
    num_steps: int,
    score: Score | None = None,
    score_source: Any = None,
    score_every: int = 100,
    checkpoints: Checkpoints | None = None,
    checkpoint_seconds: float = 60.0,
    seconds_per_dispatch: float = 1.0,
    mesh: Mesh | None = None,
    on_records: Callable[[Sequence[Mapping[str, Any]]], None] = lambda records: None,
    on_progress: Callable[[Progress], object] = lambda progress: None,
    on_resume: Callable[[int], None] = lambda step: None,
    on_best: Callable[[int, float, DistilledSet], None] = lambda step, score, best: None,
) -> Result:
    """Runs `num_steps` outer steps of `method`, resuming from the latest checkpoint.

    >>> import optax
    >>> from distilljax.core import distilled, outer
    >>> def outer_loss(made, key, aux, source):
    ...     return jnp.mean((made.images - source) ** 2), aux
    ...
    >>> method = outer.from_outer_loss(outer_loss, outer.per_field(optax.sgd(1.0)))
    >>> images = jnp.zeros((2, 8, 8, 1))
    >>> start = distilled.create(images, np.array([0, 1]), 2, learning_rate=0.1)
    >>> target = jnp.ones((2, 8, 8, 1))
    >>> found = loop.run(method, start, target, jax.random.key(0), num_steps=300)
    >>> round(float(found.last.images.mean()), 2)
    0.99

    Args:
      method: distillation method.
      distilled: initial set.
      source: data of the method's step; passed as an argument, not compiled as a constant.
      key: PRNG key of the run.
      num_steps: total number of outer steps, including those before a resume.
      score: (key, distilled, score_source) -> f32[], such as held-out accuracy. The key is
        the same at every call, so that scores are comparable.
      score_source: data for `score`; never the test set.
      score_every: outer steps between scores; the last step is always scored.
      checkpoints: where to save to and resume from; None for no checkpoints.
      checkpoint_seconds: time between checkpoints.
      seconds_per_dispatch: target duration of a dispatch, which sets its number of steps.
      mesh: devices that hold state and sources, for a method or a score that shares its
        work among them; None for one.
      on_records: called with one flat record per step, in order: `step`, the fields of
        `StepInfo`, and `score` if there is one.
      on_progress: called after every dispatch; `Progress.distilled` is the set at hand.
      on_resume: called with the step of the restored checkpoint.
      on_best: called with step, score and set whenever a score is the best so far.

    All but `on_resume` may raise `Stop`: the run ends at the step that was reported, as if
    it had been the last, and can be resumed from there. `on_progress=print` prints a line.

    Raises:
      InputError: a set or a source that the method cannot use.
      DivergedError: the outer loss became NaN or too large. It holds the last good set; no
        checkpoint holds a bad one.
      KeyboardInterrupt: re-raised after a checkpoint was saved.
    """
    method.check_source(source)
    init_key, step_key, score_key = jax.random.split(key, 3)
    state = devices.everywhere(init(init_key, method, distilled), mesh)
    source, score_source = devices.everywhere((source, score_source), mesh)
    step_key, score_key = devices.everywhere((step_key, score_key), mesh)
    step = 0
    if checkpoints and (latest := checkpoints.latest_step()) is not None:
        state = checkpoints.restore(latest, state)
        step = int(state.outer.step)
        on_resume(step)

    def decode(encoded: DistilledSet) -> DistilledSet:
        return method.decode(devices.here(encoded))

    def number(value: int) -> Array:
        return devices.everywhere(jnp.asarray(value, jnp.int32), mesh)

    compile_seconds = 0.0

    @contextlib.contextmanager
    def timed() -> Iterator[None]:
        nonlocal compile_seconds
        began = time.perf_counter()
        yield
        compile_seconds += time.perf_counter() - began

    with timed():
        advance = _lower(
            lambda *args: _advance(method, *args), mesh, step_key, state, source, number(1)
        ).compile()
    select: Future[Compiled] | None = None

    waiting: deque[_Dispatch] = deque()
    best_score = float(state.best_score)
    started = last_read = last_save = time.perf_counter()
    first_step, rate, last_score = step, 0.0, None

    def read() -> None:
        """Fetches the oldest dispatch and reports it."""
        nonlocal last_read, rate, last_score, best_score
        # Removed only after it is recorded: waiting can be interrupted.
        dispatch = waiting[0]
        taken, infos, value, healthy = jax.device_get(
            (dispatch.taken, dispatch.infos, dispatch.score, dispatch.state.healthy)
        )
        now = time.perf_counter()
        rate, last_read = dispatch.num_steps / max(now - last_read, 1e-6), now
        records: list[dict[str, Any]] = [
            {
                "step": dispatch.first_step + i + 1,
                **{name: float(row[i]) for name, row in infos._asdict().items()},
            }
            for i in range(int(taken))
        ]
        if value is not None and healthy:
            last_score = records[-1]["score"] = float(value)
        stopped = False
        with _undivided():
            try:
                on_records(records)
            except Stop:
                stopped = True
            waiting.popleft()
        if not healthy:
            raise _diverged(decode, dispatch, records[-1])
        done = records[-1]["step"]
        speed = (done - first_step) / (now - started)
        progress = Progress(
            done,
            num_steps,
            records[-1]["loss"],
            last_score,
            speed,
            (num_steps - done) / speed,
            dispatch.state,
            decode,
        )
        try:
            if value is not None and float(value) > best_score:
                best_score = float(value)
                on_best(done, best_score, decode(dispatch.state.best))
            on_progress(progress)
        except Stop:
            stopped = True
        if processes.gathered(np.array([stopped])).any():
            raise _Stopped(dispatch.state, done)

    def save() -> None:
        while waiting:
            read()
        keep()

    def keep() -> None:
        if checkpoints and checkpoints.latest_step() != step:
            checkpoints.save(step, state)

    def end(stopped: _Stopped) -> None:
        """Goes back to what was reported; what was dispatched since is dropped."""
        nonlocal state, step
        waiting.clear()
        state, step = stopped.state, stopped.step
        keep()

    with processes.interruptions() as asked:
        try:
            while step < num_steps:
                ahead = num_steps if score is None else score_every - step % score_every
                due = time.perf_counter() - last_save > checkpoint_seconds
                wanted = max(1, math.floor(rate * seconds_per_dispatch))
                wanted, due = _agreed(wanted, due, bool(asked))
                count = min(wanted, ahead, num_steps - step, MOST_STEPS_PER_DISPATCH)
                after, infos, taken = advance(step_key, state, source, number(count))
                scored = score is not None and (
                    step + count == num_steps or (step + count) % score_every == 0
                )
                # Traced once the first step is told, and compiled beside the next ones.
                if score is not None and select is None and (rate or scored):
                    with timed():
                        lowered = _lower(
                            lambda *args: _select(method, score, *args),
                            mesh,
                            score_key,
                            state,
                            score_source,
                        )
                        select = _in_background(lowered.compile)
                value = None
                if select and scored:
                    with timed():
                        program = select.result()
                    after, value = program(score_key, after, score_source)
                waiting.append(_Dispatch(step, count, infos, after, taken, value))
                # Assigned together and last: a state is saved with its own step.
                state, step = after, step + count
                # The first is read at once: it tells how many steps a dispatch takes.
                while len(waiting) > bool(rate):
                    read()
                if due:
                    save()
                    last_save = time.perf_counter()
            _agreed(0, False, bool(asked))
            save()
        except _Stopped as stopped:
            end(stopped)
        except KeyboardInterrupt:
            try:
                save()
            except _Stopped as stopped:
                end(stopped)
            raise

    scored = score is not None and float(state.best_score) > NO_SCORE
    last = decode(state.outer.distilled)
    return Result(
        decode(state.best) if scored else last,
        int(state.best_step) if scored else step,
        float(state.best_score) if scored else None,
        last,
        compile_seconds,
        step,
    )


def _agreed(wanted: int, due: bool, asked: bool) -> tuple[int, bool]:
    """Returns the steps of a dispatch, and whether a checkpoint is due.

    Of several processes the first one's clock counts, and all end if one is asked to.

    Raises:
      KeyboardInterrupt: one of several was interrupted.
    """
    found = processes.gathered(np.array([wanted, due, asked], np.int32))
    if found[:, 2].any():
        raise processes.known_to_all(KeyboardInterrupt())
    return int(found[0, 0]), bool(found[0, 1])


def _lower(function: Callable[..., Any], mesh: Mesh | None, *args: Any) -> Lowered:
    """Traces and lowers a program for the platform at hand alone.

    Raises:
      InputError: programs are not to be compiled.
    """
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        raise InputError(
            "jax.disable_jit is on, and the outer loop compiles its programs ahead of "
            "time; call it without, and step(key, state, real) of the method within"
        )
    with platforms.target(platforms.current()):
        return devices.jit(function, mesh).lower(*args)


def _in_background(function: Callable[[], Compiled]) -> Future[Compiled]:
    """Calls a function in a thread of its own."""
    executor = ThreadPoolExecutor(1)
    try:
        return executor.submit(function)
    finally:
        executor.shutdown(wait=False)


class _Stopped(Exception):
    """A callback stopped the run: the state that it was shown."""

    def __init__(self, state: LoopState, step: int):
        super().__init__()
        self.state, self.step = state, step


@contextlib.contextmanager
def _undivided() -> Iterator[None]:
    """Lets Ctrl-C or SIGTERM interrupt after the block, not within it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in _INTERRUPTIONS}
    for number in _INTERRUPTIONS:
        signal.signal(number, lambda *given: asked.append(given))
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
    for raised, frame in asked:
        handler = before[signal.Signals(raised)]
        if callable(handler):
            handler(raised, frame)


def _diverged(
    decode: Callable[[DistilledSet], DistilledSet],
    dispatch: _Dispatch,
    record: Mapping[str, Any],
) -> DivergedError:
    state = dispatch.state
    loss, first = record["loss"], float(state.first_loss)
    if not math.isfinite(loss):
        what = f"became {loss}"
    elif loss > EXPLOSION * abs(first):
        what = f"exploded to {loss:.3g} (it began at {first:.3g})"
    else:
        what = f"is {loss:.3g}, but its gradient is not finite"
    return DivergedError(
        f"the outer loss {what} at outer step {record['step']}",
        record["step"],
        decode(state.outer.distilled),
    )
