"""What a server costs: time, CPU time and bytes on disk."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SLOW_SECONDS = 5  # a query that takes longer is not repeated
RUNS = 3

BLOCK_BYTES = 512  # st_blocks counts in them, whatever the file system does
QUIET_SECONDS = 10
LONGEST_SECONDS = 60


class QueryCost(NamedTuple):
    """The median time of a query, and the CPU time of its server for one run, in seconds."""

    seconds: float
    cpu_seconds: float


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def query_cost(median_seconds: Callable[[int], float], pid: int) -> QueryCost:
    """Measure a query on a server that was just started.

    `median_seconds` returns the median time of so many runs. Other work on the machine lengthens
    the time, but not the CPU time. The first run warms the server up, and does not count, unless it
    is slow: then it is the only one.
    """
    before = cpu_seconds(pid)
    seconds = median_seconds(1)
    if seconds > SLOW_SECONDS:
        return QueryCost(seconds, cpu_seconds(pid) - before)

    before = cpu_seconds(pid)
    seconds = median_seconds(RUNS)
    return QueryCost(seconds, (cpu_seconds(pid) - before) / RUNS)


def describe_volume(days: int, points_per_second: float, size: int, memory: float) -> str:
    """Describe the reports of so many days in a database: bytes on disk, peak memory in MiB."""
    return (
        f"{days} days at {points_per_second:.0f} points/s: {size / 2**20:.0f} MiB on disk; "
        f"peak memory {memory:.0f} MiB"
    )


def folder_bytes(folder: Path) -> int:
    """Return the bytes of a folder on disk, as du counts them."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the server has just merged it into another
            total += path.stat().st_blocks * BLOCK_BYTES
    return total


def settled_bytes(folder: Path) -> int:
    """Return the bytes of a folder when they have not changed for a while, or after a minute."""
    sizes = [folder_bytes(folder)]
    while len(sizes) < LONGEST_SECONDS:
        last_sizes = sizes[-QUIET_SECONDS:]
        if len(last_sizes) == QUIET_SECONDS and len(set(last_sizes)) == 1:
            break
        time.sleep(1)
        sizes.append(folder_bytes(folder))
    return sizes[-1]
