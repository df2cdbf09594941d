"""The first second of a command, before anything heavy is imported."""

import importlib
import os
import sys


def command(name: str) -> None:
    """Runs the command `experiments.NAME`; an interruption ends in one line.

    Args:
      name: of the experiment, whose `run` module has `main`.
    """
    try:
        importlib.import_module(f"experiments.{name}.run").main()
    except KeyboardInterrupt:
        print(
            "interrupted before the run began; run the same command again", file=sys.stderr
        )
        sys.stderr.flush()
        os._exit(130)
