"""The software and the machine that a result was computed with."""

import datetime
import importlib.metadata
import platform
import resource
import sys
from typing import NotRequired, TypedDict

import jax

import distilljax
from distilljax import platforms


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
    threads: NotRequired[int]  # of XLA on the CPU; older records lack it
    finished: NotRequired[str]  # date, ISO 8601; older records lack it


def environment() -> Environment:
    """Returns the versions, the device and today's date.

    >>> sorted(environment.environment())[:3]
    ['device', 'distilljax', 'finished']
    """
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
        "threads": platforms.cpu_threads(),
        "finished": datetime.date.today().isoformat(),
    }


def arithmetic() -> str:
    """Returns what, beside settings and data, the last digits of a result depend on.

    The compiler, the kind of device, and on a CPU the number of threads, by which sums are
    split. Where these agree, the same computation gives the same bits.

    >>> environment.arithmetic()  # doctest: +SKIP
    """
    kind, version = jax.devices()[0].device_kind, importlib.metadata.version("jaxlib")
    if jax.default_backend() != "cpu":
        return f"jaxlib {version} on {kind}"
    num = platforms.cpu_threads()
    return f"jaxlib {version} on {num} CPU {'thread' if num == 1 else 'threads'}"


def peak_memory_bytes() -> int:
    """Returns the largest resident size of this process so far, in bytes.

    >>> environment.peak_memory_bytes() > 1e6
    True
    """
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def children_cpu_seconds() -> float:
    """Returns the CPU seconds of all processes that were started here and have ended.

    >>> environment.children_cpu_seconds() >= 0
    True
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
