"""Tests of a profile: rounds, rows, interruption and what it refuses; nothing is really timed."""

import contextlib
import dataclasses
from types import SimpleNamespace

import pytest

import hw_models as hw
from hw_models.measuring.machine import ClockSetting
from hw_models.measuring.measurements import format_layers, read_measurements
from hw_models.measuring.profiling import Case, profile
from hw_models.measuring.timing import Timing


class FakeMachine:
    """Holds what it is told to."""

    name = "a board, CPU, 4 CPU cores"

    def __init__(self):
        self.held = []

    @contextlib.contextmanager
    def hold(self, setting):
        self.held.append(setting)
        yield setting


class FakeTimer:
    """Gives the latencies of a case one after the other, in ms."""

    def __init__(self, **latencies):
        self.left = {name: list(values) for name, values in latencies.items()}
        self.order, self.stop_after = [], None

    def __call__(self, run, *, meter=None, reference=None):
        if self.stop_after is not None and len(self.order) == self.stop_after:
            raise KeyboardInterrupt
        name = run()
        self.order.append(name)
        power = None if meter is None else 5.0
        return Timing(latency_s=1e-3 * self.left[name].pop(0), spread_s=1e-5, runs=10, power_w=power)


def table(macs):
    return hw.layer_table([hw.LayerKind.DENSE], [macs], weight_elements=[1], input_elements=[1], output_elements=[1])


def cases(*names, macs=100):
    return [Case(name, f"family {name}", table(macs), lambda name=name: lambda: name, batch=2) for name in names]


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
    assert row.layers == format_layers(table(100))
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
    machine, settings = FakeMachine(), [ClockSetting(500.0, 1600.0), ClockSetting(1000.0, 1600.0)]
    meter = SimpleNamespace(rail="board")
    rows = profile(
        cases("a"),
        path,
        machine=machine,
        meter=meter,
        settings=settings,
        rounds=1,
        time_one=FakeTimer(a=[2.0, 1.0]),
    )
    assert machine.held == settings
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
    monkeypatch.setattr("hw_models.measuring.profiling._Taken.finish", lambda *_: [])
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
    profile(cases("a"), path, machine=FakeMachine(), settings=at, rounds=1, time_one=FakeTimer(a=[2.0]))
    rows = profile(cases("a"), path, machine=FakeMachine(), rounds=1, time_one=FakeTimer(a=[1.0]), resume=True)
    assert [(row.core_mhz, row.latency_ms) for row in rows] == [(500.0, 2.0), (None, 1.0)]


def test_the_reference_comes_first_and_paces_all_others_at_its_first_latency(path):
    seen = []

    def time_one(run, *, meter, reference):
        seen.append((run(), reference and (reference.run(), reference.latency_s)))
        return Timing(latency_s=1e-3 * len(seen), spread_s=0.0, runs=3)

    profile(cases("a", "b", "c"), path, machine=FakeMachine(), reference="c", rounds=2, time_one=time_one)
    assert seen[0] == ("c", None)
    assert [name for name, _ in seen[3:4]] == ["c"]
    assert {pace for _, pace in seen[1:]} == {("c", 1e-3)}


def test_a_resumed_profile_keeps_the_pace_of_its_reference(path):
    profile(cases("a"), path, machine=FakeMachine(), reference="a", rounds=1, time_one=FakeTimer(a=[7.0]))
    paces = []

    def time_one(run, *, meter, reference):
        paces.append(reference.latency_s)
        return Timing(latency_s=1e-3, spread_s=0.0, runs=3)

    profile(cases("a", "b"), path, machine=FakeMachine(), reference="a", rounds=1, resume=True, time_one=time_one)
    assert paces == [pytest.approx(7e-3)]


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
        ({"settings": []}, "operating points: expected one or more"),
        ({"settings": [ClockSetting(), ClockSetting(1.0)]}, "operating points: expected one or more that all set"),
    ],
)
def test_what_cannot_be_profiled_is_refused_before_anything_runs(changes, message, path):
    wanted = {"cases": cases("a")} | changes
    with pytest.raises(ValueError, match=message):
        profile(wanted.pop("cases"), path, machine=FakeMachine(), **wanted)
    assert not path.exists()


def test_power_that_is_zero_or_unknown_stays_empty(path):
    def time_one(run, *, meter, reference):
        return dataclasses.replace(Timing(1e-3, 0.0, 3), power_w=0.0)

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
