"""The platform for which programs are written, where their structure depends on it.

How a convolution is computed is decided when a program is lowered (`models.conv`), and
within `target` when it is traced, which spares tracing the formulations of other platforms.
Sizes of chunks and the number of networks side by side shape the traced program itself:
they follow `on_cpu`. By default that is where JAX would run the program; a program that is
compiled ahead of time for other devices is traced within `target`.
"""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_TARGET: ContextVar[str | None] = ContextVar("target", default=None)


@contextlib.contextmanager
def target(platform: str) -> Iterator[None]:
    """Has programs traced within it structured for a platform: cpu, cuda, rocm, gpu or tpu.

    `jax.jit` keeps what it has traced: a function that was called or lowered before, with
    the same shapes, keeps the structure it got then.
    """
    token = _TARGET.set(platform)
    try:
        yield
    finally:
        _TARGET.reset(token)


def on_cpu() -> bool:
    """Returns whether programs traced here are structured for a CPU.

    The platform is that of `current`.
    """
    return current() == "cpu"


def current() -> str:
    """Returns that of `target`, else of `jax.default_device`, else JAX's default."""
    if (platform := _TARGET.get()) is None:
        device = jax.config.jax_default_device  # type: ignore[attr-defined]
        platform = getattr(device, "platform", device) or jax.default_backend()
    return str(platform)


def targeted() -> str | None:
    """Returns the platform of `target`; None outside of it."""
    return _TARGET.get()


def cpu_threads() -> int:
    """Returns the number of threads that XLA computes with on the CPU."""
    with contextlib.suppress(KeyError, ValueError):
        return max(1, int(os.environ["NPROC"]))  # as XLA reads it
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_per_device() -> int:
    """Returns the threads that each device of the CPU has, if all compute at once."""
    num = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    return max(1, cpu_threads() // num)
