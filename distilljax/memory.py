"""The memory of the machine; work that cannot fit is refused before it is allocated."""

import contextlib
import os
import pathlib
import resource

from distilljax.types import InputError

_CGROUP = pathlib.Path("/sys/fs/cgroup/memory.max")


def available() -> int:
    """Returns the bytes that this process may use: of the machine, container and limits.

    What other programs use is not taken off.
    """
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    found = [pages * size]
    with contextlib.suppress(OSError, ValueError):
        found.append(int(_CGROUP.read_text()))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        found.append(soft)
    return min(found)


def require(num_bytes: float, what: str, advice: str) -> None:
    """Refuses what needs more memory than this machine has.

    Args:
      num_bytes: at least needed.
      what: needs them, for the message: `the covariance of 224 x 224 x 3 images`.
      advice: what to do about it.

    Raises:
      InputError: there are fewer.
    """
    there = available()
    if num_bytes > there:
        raise InputError(
            f"{what} needs {spelt(num_bytes)} of memory, and this machine has "
            f"{spelt(there)}; {advice}"
        )


def spelt(num_bytes: float) -> str:
    """Returns a size such as 12.3 GiB."""
    units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while num_bytes >= 1024 and len(units) > 1:
        num_bytes /= 1024
        units.pop(0)
    return f"{num_bytes:.{0 if units[0] == 'B' else 1}f} {units[0]}"
