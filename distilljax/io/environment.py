"""The software and the machine that a result was computed with."""

import datetime
import importlib.metadata
import platform
import resource
import sys
from typing import NotRequired, TypedDict

import jax

import distilljax


class Environment(TypedDict):
    """Versions, device and date, as records hold them."""

    distilljax: str
    python: str
    jax: str
    jaxlib: str
    flax: str
    optax: str
    numpy: str
    device: str  # number, platform and kind
    machine: str  # processor architecture, operating system
    finished: NotRequired[str]  # date, ISO 8601; older records lack it


def environment() -> Environment:
    """Returns the versions, the device and today's date."""
    device = jax.devices()[0]
    version = importlib.metadata.version
    return {
        "distilljax": distilljax.__version__,
        "python": platform.python_version(),
        "jax": version("jax"),
        "jaxlib": version("jaxlib"),
        "flax": version("flax"),
        "optax": version("optax"),
        "numpy": version("numpy"),
        "device": f"{jax.device_count()} x {device.platform} {device.device_kind}",
        "machine": f"{platform.machine()}, {platform.system()}",
        "finished": datetime.date.today().isoformat(),
    }


def peak_memory_bytes() -> int:
    """Returns the largest resident size of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
