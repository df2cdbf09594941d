"""The hook of `benchmarks.start`, apart from it so that a command imports little more."""

import json
import os
from collections.abc import Mapping
from typing import Any


def end(step: int, metrics: Mapping[str, float], images: Any) -> None:
    """Prints the loss of an outer step and ends the process."""
    print(json.dumps({"step": step, "loss": metrics["loss"]}), flush=True)
    os._exit(0)
