"""Tests of the timing of one network, with a clock that its runs move."""

import contextlib
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from hw_models.measuring.measure import ClockSetting, Reference, State, Step, Timing, disturbance, summary, time_case


class Clock:
    """A clock that moves only while something runs, and the network that runs."""

    def __init__(self, durations):
        self.now, self.runs, self.durations = 0.0, 0, durations

    def __call__(self):
        return self.now

    def run(self):
        self.runs += 1
        duration = next(self.durations)
        self.now += duration
        return (duration,)


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
    timing = time_case(clock, seconds=10, least_runs=7, warm_seconds=1, timer=clock)
    assert timing.latency_s == pytest.approx((1.0,))
    assert 0 <= timing.spread_s[0] <= 0.2
    assert timing.runs >= 7
    assert timing.power_w is None


def test_warm_up_runs_until_two_batches_agree():
    falling = itertools.chain([8.0, 8.0, 4.0, 4.0, 1.0, 1.0], itertools.repeat(1.0))
    clock = Clock(falling)
    timing = time_case(clock, seconds=1, least_runs=3, warm_seconds=0.1, timer=clock)
    assert (timing.latency_s, timing.spread_s) == ((1.0,), (0.0,))
    assert clock.runs == 8 + timing.runs


def test_warm_up_ends_on_a_machine_that_never_settles():
    clock = Clock(1.5**i for i in itertools.count())
    timing = time_case(clock, seconds=1, least_runs=3, warm_seconds=0.1, timer=clock)
    assert clock.runs == 12 + timing.runs


def test_fast_callables_run_for_the_time_and_slow_ones_for_the_count():
    fast, slow = Clock(itertools.repeat(0.125)), Clock(itertools.repeat(100.0))
    assert time_case(fast, seconds=10, least_runs=7, timer=fast).runs == 80
    assert time_case(slow, seconds=10, least_runs=7, timer=slow).runs == 7


def test_power_is_read_behind_the_timed_runs_over_a_loop_of_its_own():
    clock = Clock(itertools.repeat(0.5))
    meter = Meter(clock)
    timing = time_case(clock, seconds=1, least_runs=2, meter=meter, meter_seconds=3, timer=clock)
    assert timing.power_w == 7.0
    assert timing.runs == 2
    assert meter.spans == [3.0]


@pytest.mark.parametrize("name", ["seconds", "least_runs", "meter_seconds"])
def test_what_is_not_positive_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: expected a positive number, got 0"):
        time_case(None, **{name: 0})


def test_a_drifting_machine_changes_nothing_beside_a_reference():
    # Both become slower and slower; what is timed takes three runs of the reference, which counts as 2 s.
    slowness = [1.0]

    def run(seconds):
        slowness[0] *= 1.002
        return (seconds * slowness[0],)

    case = SimpleNamespace(run=lambda: run(3.0))
    reference = Reference(lambda: run(1.0), 2.0)
    timing = time_case(case, seconds=1e-9, least_runs=400, warm_seconds=0.0, reference=reference)
    assert slowness[0] > 4
    assert timing.latency_s == pytest.approx((6.0,), rel=0.01)
    assert timing.spread_s[0] < 0.02


def test_after_a_run_of_the_reference_the_first_of_either_is_not_timed():
    ran = []

    def run(name):
        ran.append(name)
        return (9.0 if ran[-2:-1] != [name] else 2.0,)

    reference = Reference(lambda: run("r"), 2.0)
    timing = time_case(SimpleNamespace(run=lambda: run("c")), seconds=1e-9, least_runs=5, reference=reference)
    assert timing.latency_s == (2.0,)
    assert "".join(ran).endswith("rrrrcccc" * 2)
    assert timing.runs == 6


def test_every_segment_has_a_time_and_percentiles_where_runs_suffice():
    rng = np.random.default_rng(0)
    runs = rng.permutation(np.arange(1000.0) / 1000)
    left = iter([*runs[:20], *runs])
    case = SimpleNamespace(run=lambda: (next(left), 10.0))
    timing = time_case(case, seconds=1e-9, least_runs=1000, warm_seconds=0.0)
    assert timing.latency_s == pytest.approx((0.5, 10.0), abs=0.02)
    assert timing.p95_s == pytest.approx((0.95, 10.0), abs=0.01)
    assert timing.p99_s == pytest.approx((0.99, 10.0), abs=0.01)
    few = time_case(SimpleNamespace(run=lambda: (1.0,)), seconds=1e-9, least_runs=20, warm_seconds=0.0)
    assert (few.p95_s, few.p99_s) == ((1.0,), (None,))


def timing_between(before, after):
    return Timing((1.0,), (0.0,), (None,), (None,), 3, before=before, after=after)


@pytest.mark.parametrize(
    ("before", "after", "held", "expected"),
    [
        (State({}), State({}), ClockSetting(), ""),
        (State({"core_mhz": 1000.0}), State({"core_mhz": 1030.0}), ClockSetting(), ""),
        (
            State({"core_mhz": 1000.0}),
            State({"core_mhz": 900.0}),
            ClockSetting(),
            "core_mhz moved from 1000 to 900 MHz",
        ),
        (
            State({"core_mhz": 1000.0}),
            State({"core_mhz": 970.0}),
            ClockSetting(1000.0),
            "core_mhz was to be held at 1000 MHz and ran at 970",
        ),
        (
            State({"core_mhz": 900.0}),
            State({"core_mhz": 1000.0}),
            ClockSetting(1000.0),
            "core_mhz was to be held at 1000 MHz and ran at 900",
        ),
        (State({}, 4.0), State({}, 4.0), ClockSetting(), ""),
        (State({}, 4.0), State({}, 6.0), ClockSetting(), "the machine throttled (2 times)"),
    ],
)
def test_what_moves_or_throttles_disturbs(before, after, held, expected):
    assert disturbance(timing_between(before, after), held) == expected


def test_other_work_on_the_processor_is_said():
    def said(shares, provider="CPU"):
        steps = [Step(1, 1, 1, "a", 1.0, "" if share else "clocks moved", share or 1.0) for share in shares]
        return summary(steps, provider)

    assert said([1.0, 0.99]) == ["0 disturbed measurements left out"]
    assert said([0.0, 0.6, 0.5])[0] == "1 disturbed measurements left out"
    assert said([0.6, 0.5], "CPU, 2 threads")[1].startswith("Other work took 45% of the processor meanwhile")
    assert len(said([0.6, 0.5], "CUDA")) == 1


def test_the_machine_is_looked_at_before_and_after_the_timed_runs():
    ran, states = [0], []

    def run():
        ran[0] += 1
        return (1.0,)

    def state():
        states.append(ran[0])
        return State({"core_mhz": float(ran[0])})

    timing = time_case(SimpleNamespace(run=run), seconds=1e-9, least_runs=9, warm_seconds=0.0, state=state)
    assert (timing.before.clocks["core_mhz"], timing.after.clocks["core_mhz"]) == (states[0], states[0] + 9)
