"""Whether a process may have died for want of memory."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def oom_kills() -> int:
    """Returns how many processes of this control group the kernel has killed for want of memory."""
    try:
        events = (_group() / "memory.events").read_text().split()
        return int(events[events.index("oom_kill") + 1])
    except (OSError, ValueError, IndexError):
        return 0


def _group() -> Path:
    """Returns the folder of this process's control group, in version 2 of their file system."""
    try:
        return Path("/sys/fs/cgroup" + Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2])
    except OSError:
        return Path("/sys/fs/cgroup")


def limit_bytes() -> int:
    """Returns the memory that a process here can have at most, as far as the system tells."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    group = _group()
    for folder in (group, *group.parents):
        try:
            limits.append(int((folder / "memory.max").read_text()))
        except (OSError, ValueError):
            pass  # no limit there, or the end of the groups
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)
