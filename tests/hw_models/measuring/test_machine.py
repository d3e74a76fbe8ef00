"""Tests of a machine's operating points and meters, on a made-up file system."""

import os
import time

import pytest

from hw_models.measuring.machine import ClockSetting, CounterMeter, Machine, RailMeter
from hw_models.measuring.sysfs import EnergyCounter, Rail


def fill(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    return folder


@pytest.fixture
def jetson(tmp_path):
    """Root of a machine whose CPU varies and whose memory is locked."""
    fill(
        tmp_path / "sys/devices/system/cpu/cpufreq/policy0",
        scaling_cur_freq=1200000,
        scaling_min_freq=115200,
        scaling_max_freq=2265600,
        scaling_available_frequencies="115200 1190400 2265600",
    )
    fill(
        tmp_path / "sys/class/devfreq/17000000.gv11b",
        cur_freq=318750000,
        min_freq=114750000,
        max_freq=1377000000,
        available_frequencies="114750000 318750000 1377000000",
    )
    fill(tmp_path / "sys/kernel/debug/bpmp/debug/clk/emc", rate=2133000000, mrq_rate_locked=1)
    return tmp_path


def add_rails(root, **watts):
    for i, (label, value) in enumerate(watts.items()):
        folder = root / f"sys/class/hwmon/hwmon{i}"
        fill(folder, name="ina3221", in1_label=label, in1_input=1000, curr1_input=1000 * value)


def test_a_machine_is_named_by_its_board_or_its_processor(tmp_path):
    cores = os.cpu_count()
    fill(tmp_path / "proc", cpuinfo="processor : 0\nmodel name : Some CPU @ 2 GHz\nmodel name : Some CPU @ 2 GHz")
    assert Machine("cpu", tmp_path).name == f"Some CPU @ 2 GHz, CPU, {cores} CPU cores"
    assert Machine("gpu", tmp_path, "Some GPU").name == f"Some GPU, GPU, {cores} CPU cores"
    fill(tmp_path / "proc/device-tree", model="Some Board\0")
    assert Machine("gpu", tmp_path).name == f"Some Board, GPU, {cores} CPU cores"
    assert Machine("cpu", tmp_path / "nowhere").name.endswith(f", CPU, {cores} CPU cores")


def test_held_clocks_are_known_and_others_are_not(jetson):
    machine = Machine("gpu", jetson)
    with machine.hold(ClockSetting()) as known:
        assert known == ClockSetting(memory_mhz=2133.0)
    with machine.hold(ClockSetting(core_mhz=318.75, host_mhz=1190.4)) as known:
        assert known == ClockSetting(core_mhz=318.75, memory_mhz=2133.0, host_mhz=1190.4)
    with machine.hold(ClockSetting()) as known:
        assert known == ClockSetting(memory_mhz=2133.0)


def test_a_cpu_has_a_core_clock_and_no_host_clock(jetson):
    with Machine("cpu", jetson).hold(ClockSetting(core_mhz=1190.4)) as known:
        assert known == ClockSetting(core_mhz=1190.4, memory_mhz=2133.0)
    with (
        pytest.raises(ValueError, match=r"host_mhz: expected a clock .*\(core_mhz, memory_mhz\), got 9"),
        Machine("cpu", jetson).hold(ClockSetting(host_mhz=9)),
    ):
        pass


def test_clocks_set_before_one_that_is_refused_are_restored(jetson):
    with pytest.raises(ValueError, match="CPU clock"), Machine("gpu", jetson).hold(ClockSetting(318.75, None, 1)):
        pass
    assert (jetson / "sys/class/devfreq/17000000.gv11b/min_freq").read_text().strip() == "114750000"


def test_a_machine_that_shows_nothing_has_no_meter_and_no_clocks(tmp_path):
    machine = Machine("cpu", tmp_path)
    assert machine.meter() is None
    with machine.hold(ClockSetting()) as known:
        assert known == ClockSetting()


@pytest.mark.parametrize(
    ("processor", "watts", "expected"),
    [
        ("gpu", {"VDD_IN": 9, "VDD_CPU_GPU_CV": 4}, ("board", 9.0)),
        ("gpu", {"GPU": 5, "CPU": 2}, ("core", 5.0)),
        ("cpu", {"GPU": 5, "CPU": 2}, ("core", 2.0)),
    ],
)
def test_the_board_is_metered_rather_than_the_processor(processor, watts, expected, tmp_path):
    add_rails(tmp_path, **watts)
    meter = Machine(processor, tmp_path).meter()
    with meter.read() as reading:
        pass
    assert (meter.rail, reading.mean_w) == expected


@pytest.mark.parametrize("label", ["SOC", "VDD_GPU_SOC", "VDD_CPU_GPU_CV"])
def test_rails_that_feed_something_else_too_are_no_meter(label, tmp_path):
    add_rails(tmp_path, **{label: 3})
    assert Machine("gpu", tmp_path).meter() is None


def test_a_gpu_is_not_metered_by_the_counter_of_the_cpu(tmp_path):
    fill(tmp_path / "sys/class/powercap/intel-rapl:0", name="package-0", energy_uj=0)
    assert Machine("gpu", tmp_path).meter() is None
    assert Machine("cpu", tmp_path).meter().rail == "core"
    fill(tmp_path / "sys/class/powercap/intel-rapl:1", name="psys", energy_uj=0)
    assert Machine("gpu", tmp_path).meter().rail == "board"


def test_rails_are_sampled_while_the_block_runs(tmp_path):
    folder = fill(tmp_path, mw=100000)
    with RailMeter("core", (Rail("GPU", (folder / "mw",)),)).read() as reading:
        fill(tmp_path, mw=4000)
        time.sleep(0.2)
    assert reading.mean_w == 4.0


def test_a_counter_is_divided_by_time_also_when_it_goes_round(tmp_path):
    folder = fill(tmp_path, name="package-0", energy_uj=9_000_000, max_energy_range_uj=10_000_000)
    times = iter([100.0, 102.0])
    meter = CounterMeter("core", (EnergyCounter("package-0", folder),), timer=lambda: next(times))
    with meter.read() as reading:
        fill(tmp_path, energy_uj=5_000_000)
    assert reading.mean_w == pytest.approx(3.0)


def test_power_that_can_no_longer_be_read_is_left_out(tmp_path):
    folder = fill(tmp_path, energy_uj=1)
    meter = CounterMeter("core", (EnergyCounter("package-0", folder),))
    with meter.read() as reading:
        (folder / "energy_uj").unlink()
    assert reading.mean_w is None
    with RailMeter("core", (Rail("GPU", (folder / "none",)),)).read() as reading:
        pass
    assert reading.mean_w is None
