"""Tests of the timing of one callable, with a clock that the callable moves."""

import contextlib
import itertools
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from hw_models.measuring.timing import Reference, measure


class Clock:
    """A clock that moves only while something runs."""

    def __init__(self, durations):
        self.now, self.runs, self.durations = 0.0, 0, durations

    def __call__(self):
        return self.now

    def run(self):
        self.runs += 1
        self.now += next(self.durations)
        return jnp.zeros(1)


class Meter:
    rail = "core"

    def __init__(self, clock):
        self.clock, self.spans = clock, []

    @contextlib.contextmanager
    def read(self):
        start, reading = self.clock.now, SimpleNamespace(mean_w=None)
        yield reading
        self.spans.append(self.clock.now - start)
        reading.mean_w = 7.0


def test_the_median_and_its_absolute_deviation_are_of_the_timed_runs():
    clock = Clock(itertools.chain([5.0, 5.0], itertools.cycle([1.0, 1.0, 2.0, 1.0, 1.2, 0.9, 9.0])))
    timing = measure(clock.run, seconds=10, least_runs=7, warm_seconds=1, timer=clock)
    assert timing.latency_s == pytest.approx(1.0)
    assert 0 <= timing.spread_s <= 0.2
    assert timing.runs >= 7
    assert timing.power_w is None


def test_warm_up_runs_until_two_batches_agree():
    falling = itertools.chain([8.0, 8.0, 4.0, 4.0, 1.0, 1.0], itertools.repeat(1.0))
    clock = Clock(falling)
    timing = measure(clock.run, seconds=1, least_runs=3, warm_seconds=0.1, timer=clock)
    assert timing.latency_s == 1.0
    assert timing.spread_s == 0.0
    assert clock.runs == 8 + timing.runs


def test_warm_up_ends_on_a_machine_that_never_settles():
    clock = Clock(1.5**i for i in itertools.count())
    timing = measure(clock.run, seconds=1, least_runs=3, warm_seconds=0.1, timer=clock)
    assert clock.runs == 12 + timing.runs


def test_fast_callables_run_for_the_time_and_slow_ones_for_the_count():
    fast, slow = Clock(itertools.repeat(0.125)), Clock(itertools.repeat(100.0))
    assert measure(fast.run, seconds=10, least_runs=7, timer=fast).runs == 80
    assert measure(slow.run, seconds=10, least_runs=7, timer=slow).runs == 7


def test_power_is_read_behind_the_timed_runs_over_a_loop_of_its_own():
    clock = Clock(itertools.repeat(0.5))
    meter = Meter(clock)
    timing = measure(clock.run, seconds=1, least_runs=2, meter=meter, meter_seconds=3, timer=clock)
    assert timing.power_w == 7.0
    assert timing.runs == 2
    assert meter.spans == [3.0]


@pytest.mark.parametrize("name", ["seconds", "least_runs", "meter_seconds"])
def test_what_is_not_positive_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: expected a positive number, got 0"):
        measure(lambda: None, **{name: 0})


def test_a_drifting_machine_changes_nothing_beside_a_reference():
    # Both become slower and slower; what is timed takes three runs of the reference, which counts as 2 s.
    slowness = (1.1**i for i in itertools.count())
    clock = Clock(factor * pace for pace in slowness for factor in (3.0, 1.0))
    reference = Reference(clock.run, 2.0)
    timing = measure(clock.run, seconds=20, least_runs=5, warm_seconds=0.0, reference=reference, timer=clock)
    assert timing.latency_s == pytest.approx(6.0)
    assert timing.spread_s == pytest.approx(0.0, abs=1e-9)
