"""The first second of a command, before anything heavy is imported."""

import gc
import importlib
import os
import signal
import sys
import threading
from typing import Any

SECONDS_UNTIL_AGAIN = 0.05
# Tracing makes and drops hundreds of thousands of small objects, few of them in cycles. By
# Python's default, 700, looking for those took a seventh of the time to the first step.
ALLOCATIONS_BETWEEN_COLLECTIONS = 20_000


def command(name: str) -> None:
    """Runs the command `experiments.NAME`; an interruption ends in one line.

    Args:
      name: of the experiment, whose `run` module has `main`.
    """
    keep_interruptions()
    gc.set_threshold(ALLOCATIONS_BETWEEN_COLLECTIONS)
    try:
        _imported(f"experiments.{name}.run").main()
    except KeyboardInterrupt:
        print(
            "interrupted before the run began; run the same command again", file=sys.stderr
        )
        sys.stderr.flush()
        os._exit(130)


def _imported(name: str) -> Any:
    """Imports a module; JAX refuses a bad variable of the environment as it is imported."""
    try:
        return importlib.import_module(name)
    except ValueError as error:
        if "jax" not in str(error).lower():
            raise
        print(
            f"error: the environment sets JAX wrongly ({error}); unset that variable, or "
            "give it another value",
            file=sys.stderr,
        )
        sys.exit(2)


def keep_interruptions() -> None:
    """Sends an interruption again where Python has to drop it.

    What is raised in a callback of the garbage collector, as JAX has one, or in a
    destructor, is reported and dropped: a run would go on after Ctrl-C.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before(unraisable)
            return
        again = threading.Timer(SECONDS_UNTIL_AGAIN, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
