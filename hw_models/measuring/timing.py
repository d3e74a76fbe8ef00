"""Timing of one callable: warm-up, median and spread of its runs, and the mean power while it repeats.

Units: s, W.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import jax

_STABLE = 0.05  # relative change of the median between two warm-up batches that counts as none
_LEAST_S = 1e-9  # a clock's tick, for a reference that takes no time
_WARM_BATCHES = 6  # after which timing starts on a machine that never becomes stable


@dataclass(frozen=True)
class Timing:
    """What was measured of one callable.

    Attributes:
        latency_s: Median of the timed runs.
        spread_s: Median absolute deviation of the timed runs from it.
        runs: Number of timed runs.
        power_w: Mean power while it repeated; None where nothing could be read.
    """

    latency_s: float
    spread_s: float
    runs: int
    power_w: float | None = None


@dataclass(frozen=True)
class Reference:
    """A callable that runs in turn with what is timed, so that a machine whose speed drifts is no ruler that shrinks.

    Attributes:
        run: Called without arguments, as what is timed.
        latency_s: What one run of it counts as.
    """

    run: Callable[[], Any]
    latency_s: float


@dataclass
class Reading:
    """A power reading under way.

    Attributes:
        mean_w: Mean power over the block that was left; None where nothing could be read.
    """

    mean_w: float | None = None


class Meter(Protocol):
    """Something that reads power.

    Attributes:
        rail: What is read: `board`, or `core` for the processor alone.
    """

    @property
    def rail(self) -> str:
        """What is read: board or core."""

    def read(self) -> AbstractContextManager[Reading]:
        """Reads power while its block runs."""


def measure(
    run: Callable[[], Any],
    *,
    seconds: float = 0.3,
    least_runs: int = 7,
    warm_seconds: float = 0.05,
    reference: Reference | None = None,
    meter: Meter | None = None,
    meter_seconds: float = 1.0,
    timer: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Times a callable, each run until its result is ready.

    It first runs untimed in batches until the medians of two batches agree. Power is read in a loop of its own
    behind the timed one, so that reading does not slow the timed runs.

    Args:
        run: Called without arguments; returns JAX arrays in any pytree, or nothing.
        seconds: Time to spend on timed runs, at least.
        least_runs: Timed runs, at least.
        warm_seconds: Time of one batch of the warm-up, at least; the batch has two runs or more.
        reference: Runs after every timed run, whose time is then counted in runs of it.
        meter: What reads power; None: power is left out.
        meter_seconds: Time of the loop that power is averaged over, at least.
        timer: Clock in seconds.

    Returns:
        The timing.

    Raises:
        ValueError: A duration or count is not positive.
    """
    for name, value in {"seconds": seconds, "least_runs": least_runs, "meter_seconds": meter_seconds}.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")
    _warm_up(run, warm_seconds, timer)
    if reference is not None:
        _times(reference.run, 0.0, 2, timer)
    times = _times(run, seconds, least_runs, timer, reference)
    latency = statistics.median(times)
    power = None
    if meter is not None:
        with meter.read() as reading:
            _times(run, meter_seconds, 1, timer)
        power = reading.mean_w
    return Timing(
        latency_s=latency,
        spread_s=statistics.median(abs(one - latency) for one in times),
        runs=len(times),
        power_w=power,
    )


def _warm_up(run: Callable[[], Any], seconds: float, timer: Callable[[], float]) -> None:
    before = statistics.median(_times(run, seconds, 2, timer))
    for _ in range(_WARM_BATCHES - 1):
        now = statistics.median(_times(run, seconds, 2, timer))
        if abs(now - before) <= _STABLE * before:
            return
        before = now


def _times(
    run: Callable[[], Any],
    seconds: float,
    least_runs: int,
    timer: Callable[[], float],
    reference: Reference | None = None,
) -> list[float]:
    """Runs for at least so long and so often; returns the time of each run, at the pace of a reference run in turn."""
    times: list[float] = []
    spent = 0.0
    while spent < seconds or len(times) < least_runs:
        begin = timer()
        jax.block_until_ready(run())
        end = timer()
        spent += end - begin
        pace = 1.0
        if reference is not None:
            jax.block_until_ready(reference.run())
            pace = reference.latency_s / max(timer() - end, _LEAST_S)
        times.append((end - begin) * pace)
    return times
