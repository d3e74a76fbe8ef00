"""Tests of a profile: rounds, rows, interruption, disturbance and what it refuses; nothing is really timed."""

import contextlib
import os
import signal
from types import SimpleNamespace

import pytest

from hw_models.measuring import measure
from hw_models.measuring.measure import Case, ClockSetting, Machine, State, Timing
from hw_models.measuring.measurements import Measurement, read_measurements


class FakeMachine:
    """Holds what it is told to."""

    name = "a board, CPU, 4 CPU cores"

    def __init__(self):
        self.held = []

    @contextlib.contextmanager
    def hold(self, setting):
        self.held.append(setting)
        yield setting

    def state(self):
        return State({})


class FakeTimer:
    """Gives the latencies of a case one after the other, in ms; of a path, those of its prefixes."""

    def __init__(self, **latencies):
        self.left = {name: list(values) for name, values in latencies.items()}
        self.order, self.stop_after = [], None

    def __call__(self, name, *, meter=None, reference=None, state=None):
        if self.stop_after is not None and len(self.order) == self.stop_after:
            raise KeyboardInterrupt
        self.order.append(name)
        latency = self.left[name].pop(0)
        ms = latency if isinstance(latency, tuple) else (latency,)
        return timing(*ms, power_w=None if meter is None else 5.0)


def timing(*ms, **how):
    number = len(ms)
    nothing = (None,) * number
    return Timing(tuple(1e-3 * one for one in ms), (1e-5,) * number, nothing, nothing, how.pop("runs", 10), **how)


def cases(*names, macs=100):
    return [Case(name, f"family {name}", (layers(macs),), lambda name=name: name, batch=2) for name in names]


def layers(macs):
    return f"dense {macs} 1 1 1 1"


def profile(*arguments, **options):
    """The rows as a reader of the file sees them."""
    rows = measure.profile(*arguments, **options)
    return [
        Measurement.model_validate({name: value for name, value in row.items() if value is not None}) for row in rows
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "measurements.csv"


def test_a_row_is_the_median_of_the_rounds(path):
    timer = FakeTimer(a=[1.0, 9.0, 2.0], b=[4.0, 4.0, 5.0])
    rows = profile(cases("a", "b"), path, machine=FakeMachine(), time_one=timer)
    assert rows == read_measurements(path)
    found = {row.network: row for row in rows}
    assert (found["a"].latency_ms, found["b"].latency_ms) == (2.0, 4.0)
    assert (found["a"].spread_ms, found["b"].spread_ms) == (1.0, 0.01)
    row = found["a"]
    assert (row.family, row.batch, row.format, row.runs) == ("family a", 2, "fp32", 30)
    assert row.layers == layers(100)
    assert row.machine == FakeMachine.name
    assert (row.core_mhz, row.power_w, row.power_rail) == (None, None, None)
    assert list(path.parent.iterdir()) == [path]


def test_rounds_go_over_all_networks_in_changing_order(path):
    names = "abcdefgh"
    timer = FakeTimer(**{name: [1.0] * 3 for name in names})
    profile(cases(*names), path, machine=FakeMachine(), time_one=timer)
    orders = [timer.order[i : i + 8] for i in (0, 8, 16)]
    assert all(sorted(order) == list(names) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_every_operating_point_is_held_and_written(path):
    machine, clocks = FakeMachine(), [ClockSetting(500.0, 1600.0), ClockSetting(1000.0, 1600.0)]
    meter = SimpleNamespace(rail="board")
    rows = profile(
        cases("a"),
        path,
        machine=machine,
        meter=meter,
        clocks=clocks,
        rounds=1,
        time_one=FakeTimer(a=[2.0, 1.0]),
    )
    assert machine.held == clocks
    assert [(row.core_mhz, row.memory_mhz, row.host_mhz, row.latency_ms) for row in rows] == [
        (500.0, 1600.0, None, 2.0),
        (1000.0, 1600.0, None, 1.0),
    ]
    assert {(row.power_w, row.power_rail) for row in rows} == {(5.0, "board")}


@pytest.mark.parametrize("taken", range(7))
def test_an_interrupted_profile_goes_on_where_it_stopped(taken, path):
    latencies = {"a": [1.0, 2.0, 3.0], "b": [4.0, 6.0, 5.0]}
    whole = profile(cases("a", "b"), path, machine=FakeMachine(), time_one=FakeTimer(**latencies))
    path.unlink()

    timer, steps = FakeTimer(**latencies), []
    timer.stop_after = taken
    with contextlib.suppress(KeyboardInterrupt):
        profile(cases("a", "b"), path, machine=FakeMachine(), time_one=timer)
    timer.stop_after = None
    again = profile(
        cases("a", "b"),
        path,
        machine=FakeMachine(),
        time_one=timer,
        resume=taken > 0,
        on_step=steps.append,
    )
    assert again == whole
    assert len(timer.order) == 6
    assert [step.done for step in steps] == list(range(taken + 1, 7))
    assert {step.total for step in steps} <= {6}


def test_more_networks_and_operating_points_may_be_added(path):
    profile(cases("a"), path, machine=FakeMachine(), time_one=FakeTimer(a=[1.0] * 3))
    timer = FakeTimer(b=[2.0] * 3)
    rows = profile(cases("a", "b"), path, machine=FakeMachine(), time_one=timer, resume=True)
    assert [row.network for row in rows] == ["a", "b"]
    assert timer.order == ["b"] * 3


def test_a_line_that_a_killed_profile_left_half_is_measured_again(path):
    with contextlib.suppress(KeyboardInterrupt):
        timer = FakeTimer(a=[1.0, 1.0])
        timer.stop_after = 2
        profile(cases("a"), path, machine=FakeMachine(), time_one=timer)
    kept = path.with_name(path.name + ".rounds")
    kept.write_bytes(kept.read_bytes()[:-9])
    timer = FakeTimer(a=[0.5, 3.0])
    (row,) = profile(cases("a"), path, machine=FakeMachine(), time_one=timer, resume=True)
    assert row.latency_ms == 1.0
    assert len(timer.order) == 2


def interrupted(path, taken):
    """Leaves a profile of one network after some of its three rounds."""
    timer = FakeTimer(a=[1.0, 3.0, 2.0])
    timer.stop_after = taken
    with contextlib.suppress(KeyboardInterrupt):
        profile(cases("a"), path, machine=FakeMachine(), time_one=timer)


def test_rounds_that_suffice_after_all_become_rows(path):
    interrupted(path, 2)
    rows = profile(cases("a"), path, machine=FakeMachine(), time_one=FakeTimer(), rounds=2, resume=True)
    assert [row.latency_ms for row in rows] == [2.0]
    assert rows == read_measurements(path)


def test_a_profile_killed_between_its_last_round_and_the_row_writes_the_row(path, monkeypatch):
    monkeypatch.setattr("hw_models.measuring.measure._Taken.finish", lambda *_: [])
    profile(cases("a"), path, machine=FakeMachine(), time_one=FakeTimer(a=[1.0, 3.0, 2.0]))
    monkeypatch.undo()
    assert not path.exists()
    (row,) = profile(cases("a"), path, machine=FakeMachine(), time_one=FakeTimer(), resume=True)
    assert row.latency_ms == 2.0


def test_rounds_of_networks_left_out_this_time_are_kept(path):
    interrupted(path, 2)
    profile(cases("b"), path, machine=FakeMachine(), time_one=FakeTimer(b=[1.0] * 3), resume=True)
    assert path.with_name(path.name + ".rounds").exists()


def test_rows_at_held_clocks_are_none_at_clocks_that_nobody_holds(path):
    at = [ClockSetting(500.0)]
    profile(cases("a"), path, machine=FakeMachine(), clocks=at, rounds=1, time_one=FakeTimer(a=[2.0]))
    rows = profile(cases("a"), path, machine=FakeMachine(), rounds=1, time_one=FakeTimer(a=[1.0]), resume=True)
    assert [(row.core_mhz, row.latency_ms) for row in rows] == [(500.0, 2.0), (None, 1.0)]


def test_the_reference_comes_first_in_each_round_and_paces_all_others_at_its_latency_there(path):
    seen = []

    def time_one(name, *, meter, reference, state):
        seen.append((name, reference and (reference.run(), reference.latency_s)))
        return timing(len(seen))

    three = [case._replace(start=lambda name=case.name: Named(name)) for case in cases("a", "b", "c")]
    profile(three, path, machine=FakeMachine(), reference="c", rounds=2, time_one=time_one)
    assert [seen[0], seen[3]] == [("c", None)] * 2
    assert [pace for _, pace in seen[1:3]] == [("c", 1e-3)] * 2
    assert [pace for _, pace in seen[4:]] == [("c", 4e-3)] * 2


@pytest.mark.parametrize(("rounds", "expected"), [(1, 7e-3), (2, 5e-3)])
def test_a_resumed_profile_keeps_the_pace_of_its_reference(rounds, expected, path):
    timer = FakeTimer(a=[7.0, 5.0], b=[1.0])
    timer.stop_after = 2 * rounds - 1  # the reference of the last round is measured, the other one is not
    two = [case._replace(start=lambda name=case.name: Named(name)) for case in cases("a", "b")]
    with contextlib.suppress(KeyboardInterrupt):
        profile(two, path, machine=FakeMachine(), reference="a", rounds=2, time_one=timer)
    paces = []

    def time_one(name, *, meter, reference, state):
        paces.append(reference and reference.latency_s)
        return timing(1.0)

    profile(two, path, machine=FakeMachine(), reference="a", rounds=2, resume=True, time_one=time_one)
    assert paces[0] == pytest.approx(expected)


def test_an_existing_file_is_not_overwritten(path):
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"expected a new file, got one that exists: `resume` continues it"):
        profile(cases("a"), path, machine=FakeMachine())
    assert path.read_text() == "mine"


def test_there_must_be_something_to_resume(path):
    with pytest.raises(ValueError, match="expected measurements to continue, got no such file"):
        profile(cases("a"), path, machine=FakeMachine(), resume=True)


def test_other_networks_of_the_same_name_are_not_mixed(path):
    profile(cases("a"), path, machine=FakeMachine(), time_one=FakeTimer(a=[1.0] * 3))
    with pytest.raises(ValueError, match="expected the network a that is to be measured, got another one"):
        profile(cases("a", macs=200), path, machine=FakeMachine(), resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cases": []}, "networks: expected one or more with different names, got none"),
        ({"cases": cases("a", "b", "a")}, "networks: expected one or more with different names, got a"),
        ({"rounds": 0}, "rounds: expected 1 or more, got 0"),
        ({"clocks": []}, "operating points: expected one or more"),
        ({"clocks": [ClockSetting(), ClockSetting(1.0)]}, "operating points: expected one or more that all set"),
    ],
)
def test_what_cannot_be_profiled_is_refused_before_anything_runs(changes, message, path):
    wanted = {"cases": cases("a")} | changes
    with pytest.raises(ValueError, match=message):
        profile(wanted.pop("cases"), path, machine=FakeMachine(), **wanted)
    assert not path.exists()


def test_power_that_is_zero_or_unknown_stays_empty(path):
    def time_one(name, *, meter, reference, state):
        return timing(1.0, power_w=0.0)

    (row,) = profile(cases("a"), path, machine=FakeMachine(), meter=SimpleNamespace(rail="core"), time_one=time_one)
    assert (row.power_w, row.power_rail) == (None, None)


@pytest.mark.parametrize("text", ["my notes, in one line", "my notes\nin two lines"])
def test_a_file_of_something_else_is_left_as_it_is(path, text):
    path.write_text(text)
    with pytest.raises(ValueError, match="expected a file of measurements to continue, got another one"):
        profile(cases("a"), path, machine=FakeMachine(), time_one=FakeTimer(a=[1.0] * 3), resume=True)
    assert path.read_text() == text


def test_a_file_that_was_cut_off_within_its_header_is_begun_anew(path):
    path.write_text("network,lay")
    (row,) = profile(cases("a"), path, machine=FakeMachine(), time_one=FakeTimer(a=[1.0] * 3), resume=True)
    assert read_measurements(path) == [row]


class Named(str):
    def run(self):
        return str(self)


def path_case(**changes):
    own = tuple(layers(macs) for macs in (100, 200, 300))
    return Case("p", "f", own, lambda: "p", kind="path")._replace(**changes)


def test_a_path_has_a_row_for_every_prefix(path):
    timer = FakeTimer(p=[(1.0, 2.0, 4.0), (1.0, 3.0, 5.0), (2.0, 3.0, 5.0)])
    rows = profile([path_case()], path, machine=FakeMachine(), meter=SimpleNamespace(rail="core"), time_one=timer)
    assert [(row.network, row.segments, row.latency_ms) for row in rows] == [
        ("p/1", 1, 1.0),
        ("p/2", 2, 3.0),
        ("p/3", 3, 5.0),
    ]
    assert [len(row.layers.split(";")) for row in rows] == [1, 2, 3]
    assert [row.family for row in rows] == ["f"] * 3
    assert [row.power_w for row in rows] == [None, None, 5.0]  # of all of it alone
    assert rows == read_measurements(path)


def test_a_whole_network_of_several_segments_is_one_row(path):
    timer = FakeTimer(p=[(1.0, 2.0, 4.0)])
    (row,) = profile([path_case(kind="whole")], path, machine=FakeMachine(), rounds=1, time_one=timer)
    assert (row.network, row.segments, row.latency_ms, len(row.layers.split(";"))) == ("p", 3, 4.0, 3)


@pytest.mark.parametrize("lines", range(1, 8))
def test_a_path_of_which_half_a_round_was_kept_is_whole_again_after_resuming(lines, path):
    latencies = [(1.0, 2.0, 4.0), (1.0, 3.0, 5.0), (2.0, 3.0, 5.0)]
    whole = profile([path_case()], path, machine=FakeMachine(), time_one=FakeTimer(p=latencies))
    path.unlink()
    timer = FakeTimer(p=latencies)
    timer.stop_after = 2
    with contextlib.suppress(KeyboardInterrupt):
        profile([path_case()], path, machine=FakeMachine(), time_one=timer)
    kept = path.with_name(path.name + ".rounds")
    kept.write_bytes(b"".join(kept.read_bytes().splitlines(keepends=True)[:lines]))
    timer = FakeTimer(p=latencies[(lines - 1) // 3 :])
    again = profile([path_case()], path, machine=FakeMachine(), time_one=timer, resume=True)
    assert again == whole


def test_rows_say_what_ran_them_and_another_runtime_does_not_mix_with_them(path):
    labels = {"runtime": "onnxruntime", "runtime_version": "1.20.1", "provider": "CPU", "kit": "0123456789ab"}
    (row,) = profile(cases("a"), path, machine=FakeMachine(), labels=labels, rounds=1, time_one=FakeTimer(a=[1.0]))
    assert {name: getattr(row, name) for name in labels} == labels
    for name, other in (("runtime", "tensorrt"), ("kit", "ba9876543210"), ("provider", None)):
        changed = {**labels, name: other}
        with pytest.raises(ValueError, match=f"expected rows of {name} {other or 'none'}, got {labels[name]}"):
            profile(cases("a"), path, machine=FakeMachine(), labels=changed, resume=True)


class Unsteady:
    """Times 1 ms, or is disturbed, as its plan says."""

    def __init__(self, plan):
        self.plan = iter(plan)

    def __call__(self, name, *, meter=None, reference=None, state=None):
        moved = 800.0 if next(self.plan) == "x" else 1000.0
        return timing(1.0, before=State({"core_mhz": 1000.0}), after=State({"core_mhz": moved}))


@pytest.mark.parametrize(
    ("plan", "rounds", "runs", "disturbed"),
    [
        ("...", 3, 30, 0),
        ("x..x.", 3, 30, 2),
        ("xxx..", 3, 20, 3),  # one round is left out
        (".xxxxxx", 3, None, 6),  # too few are left
        ("xxx", 1, None, 3),
    ],
)
def test_a_disturbed_measurement_is_repeated_then_left_out_and_counted(plan, rounds, runs, disturbed, path):
    steps, without = [], []
    rows = profile(
        cases("a"),
        path,
        machine=FakeMachine(),
        rounds=rounds,
        on_step=steps.append,
        on_inconclusive=lambda *what: without.append(what),
        time_one=Unsteady(plan),
    )
    assert [row.runs for row in rows] == ([] if runs is None else [runs])
    assert without == ([("a", "core_mhz moved from 1000 to 800 MHz")] if runs is None else [])
    assert [bool(step.trouble) for step in steps] == [each == "x" for each in plan]
    assert sum(step.latency_ms is None for step in steps) == disturbed
    assert steps[-1].done == steps[-1].total == rounds


def test_an_inconclusive_network_is_measured_again_when_resumed(path):
    profile(cases("a", "b"), path, machine=FakeMachine(), rounds=1, time_one=Unsteady("xxx."))
    (first,) = [row.network for row in read_measurements(path)]
    rows = profile(cases("a", "b"), path, machine=FakeMachine(), rounds=1, resume=True, time_one=Unsteady("."))
    assert sorted(row.network for row in rows) == ["a", "b"]
    assert rows[0].network == first


def test_without_its_reference_nothing_is_measured(path):
    without = []
    rows = profile(
        cases("a", "b"),
        path,
        machine=FakeMachine(),
        rounds=1,
        reference="b",
        on_inconclusive=lambda *what: without.append(what),
        time_one=Unsteady("xxx"),
    )
    assert rows == []
    assert without == [("a", "its reference could not be measured"), ("b", "core_mhz moved from 1000 to 800 MHz")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_process_restores_the_clocks(number, path):
    policy = path.parent / "sys/devices/system/cpu/cpufreq/policy0"
    policy.mkdir(parents=True)
    files = {
        "scaling_cur_freq": "1190400",
        "scaling_min_freq": "115200",
        "scaling_max_freq": "2265600",
        "scaling_available_frequencies": "115200 1190400 2265600",
    }
    for name, text in files.items():
        (policy / name).write_text(text)
    seen = []

    def time_one(name, **_):
        seen.append((policy / "scaling_min_freq").read_text())
        os.kill(os.getpid(), number)

    machine = Machine("cpu", path.parent)
    with pytest.raises(SystemExit) as left:
        measure.profile(cases("a"), path, machine=machine, clocks=[ClockSetting(1190.4)], time_one=time_one)
    assert left.value.code == 128 + number
    assert seen == ["1190400"]
    assert {name: (policy / name).read_text() for name in files} == files
    assert signal.getsignal(number) == signal.SIG_DFL


def test_the_columns_are_those_of_a_measurement(path):
    assert list(Measurement.model_fields) == list(measure.COLUMNS)
