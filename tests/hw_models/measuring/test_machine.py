"""Tests of a machine's operating points and meters, on a made-up file system."""

import os
import time

import pytest

from hw_models.measuring import measure
from hw_models.measuring.measure import ClockSetting, Machine

AGX_ORIN = {"VDD_GPU_SOC": 10, "VDD_CPU_CV": 5, "VIN_SYS_5V0": 8, "NC": 0, "VDDQ_VDD2_1V8AO": 3}
AGX_XAVIER = {"GPU": 1, "CPU": 2, "SOC": 3, "CV": 4, "VDDRQ": 5, "SYS5V": 6}
THOR = {"VDD_GPU": 20, "VDD_CPU_SOC_MSS": 15, "VIN_SYS_5V0": 9, "VIN": 60}


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
    """Rails in chips of three."""
    for i, (label, value) in enumerate(watts.items()):
        files = {"name": "ina3221", f"in{i % 3 + 1}_label": label, f"in{i % 3 + 1}_input": 1000}
        fill(root / f"sys/class/hwmon/hwmon{i // 3}", **files, **{f"curr{i % 3 + 1}_input": 1000 * value})


def add_clusters(root, *tables, names=(0, 4, 6)):
    """Policies of cores with their settings in MHz, each held at its highest."""
    for number, table in zip(names, tables, strict=False):
        fill(
            root / f"sys/devices/system/cpu/cpufreq/policy{number}",
            scaling_cur_freq=1000 * table[-1],
            scaling_min_freq=1000 * table[-1],
            scaling_max_freq=1000 * table[-1],
            scaling_available_frequencies=" ".join(str(1000 * mhz) for mhz in table),
        )


def test_a_machine_is_named_by_its_board_or_its_processor(tmp_path):
    cores = os.cpu_count()
    fill(tmp_path / "proc", cpuinfo="processor : 0\nmodel name : Some CPU @ 2 GHz\nmodel name : Some CPU @ 2 GHz")
    assert Machine("cpu", tmp_path).name == f"Some CPU @ 2 GHz, CPU, {cores} CPU cores"
    assert Machine("gpu", tmp_path, "Some GPU").name == f"Some GPU, GPU, {cores} CPU cores"
    fill(tmp_path / "proc/device-tree", model="Some Board\0")
    assert Machine("gpu", tmp_path).name == f"Some Board, GPU, {cores} CPU cores"
    assert Machine("cpu", tmp_path / "nowhere").name.endswith(f", CPU, {cores} CPU cores")


def test_held_clocks_are_known_and_others_are_not(jetson):
    here = Machine("gpu", jetson)
    with here.hold(ClockSetting()) as known:
        assert known == ClockSetting(memory_mhz=2133.0)
    with here.hold(ClockSetting(core_mhz=318.75, host_mhz=1190.4)) as known:
        assert known == ClockSetting(core_mhz=318.75, memory_mhz=2133.0, host_mhz=1190.4)
    with here.hold(ClockSetting()) as known:
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
    here = Machine("cpu", tmp_path)
    assert here.meter() is None
    with here.hold(ClockSetting()) as known:
        assert known == ClockSetting()


@pytest.mark.parametrize(
    ("processor", "watts", "expected"),
    [
        ("gpu", {"VDD_IN": 9, "VDD_CPU_GPU_CV": 4}, ("board", 9.0)),
        ("gpu", {"GPU": 5, "CPU": 2}, ("core", 5.0)),
        ("cpu", {"GPU": 5, "CPU": 2}, ("core", 2.0)),
        ("cpu", {"vdd_cpu_big": 5, "vdd_cpu_lit": 2}, ("core", 7.0)),
        ("gpu", AGX_ORIN, ("board", 23.0)),
        ("cpu", AGX_XAVIER, ("board", 21.0)),
        ("gpu", {label: AGX_XAVIER[label] for label in ("GPU", "CPU", "SOC")}, ("core", 1.0)),
        ("gpu", THOR, ("board", 60.0)),
        ("gpu", {label: THOR[label] for label in ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")}, ("core", 20.0)),
        ("gpu", {"VDD_SYS_GPU": 3, "VDD_SYS_SOC": 1, "VDD_IN": 8, "VDD_SYS_CPU": 2, "VDD_SYS_DDR": 1}, ("board", 8.0)),
        ("gpu", {"POM_5V_IN": 4, "POM_5V_GPU": 1, "POM_5V_CPU": 1}, ("board", 4.0)),
    ],
)
def test_the_board_is_metered_rather_than_the_processor(processor, watts, expected, tmp_path):
    add_rails(tmp_path, **watts)
    meter = Machine(processor, tmp_path).meter()
    with meter.read() as reading:
        pass
    assert (meter.rail, reading.mean_w) == expected


def test_what_power_is_read_from_is_said(tmp_path):
    here = Machine("gpu", tmp_path)
    assert here.power_in_words(here.meter()) == "no power, as nothing that may be read was found"
    add_rails(tmp_path, **{label: AGX_ORIN[label] for label in ("VDD_GPU_SOC", "VDD_CPU_CV")})
    expected = (
        "no power, as its rails (VDD_GPU_SOC, VDD_CPU_CV) are neither all that feed the board nor the processor's"
    )
    assert here.power_in_words(here.meter()) == f"{expected} alone"
    add_rails(tmp_path, **AGX_ORIN)
    assert here.power_in_words(here.meter()) == "power of the board, read from VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"


def test_the_clusters_of_a_processor_are_told_apart(tmp_path):
    """RK3588: four slow cores and two pairs of fast ones."""
    slow, fast = (408, 600, 1416, 1800), (408, 1200, 2208, 2400)
    add_clusters(tmp_path, slow, fast, fast)
    here, folder = Machine("cpu", tmp_path), tmp_path / "sys/devices/system/cpu/cpufreq"
    assert here.clocks_in_words() == "core_mhz (408 to 2400 MHz for its fastest cores); left empty: memory_mhz"
    with here.hold(ClockSetting()) as known:
        assert known == ClockSetting(core_mhz=2400.0)
    for asked, follows in ((2400, 1800), (1200, 600), (408, 408)):
        with here.hold(ClockSetting(core_mhz=asked)) as known:
            held = {policy.name: (policy / "scaling_max_freq").read_text().strip() for policy in folder.iterdir()}
        assert known == ClockSetting(core_mhz=asked)
        assert held == {"policy0": f"{follows}000", "policy4": f"{asked}000", "policy6": f"{asked}000"}
        assert (folder / "policy0/scaling_min_freq").read_text().strip() == "1800000"
    with (
        pytest.raises(ValueError, match="expected one of 408 1200 2208 2400 MHz, got 1416"),
        here.hold(ClockSetting(1416)),
    ):
        pass


def test_a_clock_is_not_known_where_the_fastest_cores_differ(tmp_path):
    add_clusters(tmp_path, (600, 1800), (600, 2400), (600, 2400))
    fill(tmp_path / "sys/devices/system/cpu/cpufreq/policy6", scaling_min_freq=600000, scaling_max_freq=600000)
    with Machine("cpu", tmp_path).hold(ClockSetting()) as known:
        assert known == ClockSetting()


def test_a_prime_core_is_a_cluster_of_its_own(tmp_path):
    add_clusters(tmp_path, (300, 1785), (710, 2419), (825, 2841), names=(0, 4, 7))
    with Machine("cpu", tmp_path).hold(ClockSetting(825)) as known:
        assert known == ClockSetting(core_mhz=825)
        policies = tmp_path / "sys/devices/system/cpu/cpufreq"
        held = [(policies / f"policy{n}/scaling_max_freq").read_text() for n in (0, 4, 7)]
        assert held == ["300000", "710000", "825000"]


def test_the_gpu_of_thor_has_a_clock_and_its_decoder_is_left_alone(tmp_path):
    for name, table in {"gpu-gpc-0": "306 1575", "gpu-nvd-0": "306 1692", "bwmgr": "204 4266"}.items():
        low, high = (f"{mhz}000000" for mhz in table.split())
        files = {"cur_freq": high, "min_freq": low, "max_freq": high, "available_frequencies": f"{low} {high}"}
        fill(tmp_path / "sys/class/devfreq" / name, **files)
    here = Machine("gpu", tmp_path)
    assert {name: clock.available_mhz() for name, clock in here.clocks().items()} == {
        "core_mhz": (306.0, 1575.0),
        "memory_mhz": (204.0, 4266.0),
    }
    with here.hold(ClockSetting(core_mhz=306, memory_mhz=4266)) as known:
        assert known == ClockSetting(306, 4266)
        assert (tmp_path / "sys/class/devfreq/gpu-nvd-0/max_freq").read_text() == "1692000000\n"


@pytest.mark.parametrize(("asked", "unit"), [(1300500, "kHz"), (1.3005, "GHz"), (1300500000, "Hz")])
def test_a_clock_in_another_unit_is_refused_with_that_unit(asked, unit, tmp_path):
    low, high = 114750000, 1300500000
    files = {"cur_freq": high, "min_freq": low, "max_freq": high, "available_frequencies": f"{low} {high}"}
    fill(tmp_path / "sys/class/devfreq/17000000.gpu", **files)
    message = rf"GPU clock: expected one of 114.75 1300.5 MHz, got .*: 1,300.5 MHz if it was in {unit}$"
    with pytest.raises(ValueError, match=message), Machine("gpu", tmp_path).hold(ClockSetting(asked)):
        pass


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


def test_rails_are_sampled_while_the_block_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_SAMPLE_S", 0.2)
    add_rails(tmp_path, GPU=100)
    with Machine("gpu", tmp_path).meter().read() as reading:
        add_rails(tmp_path, GPU=4)
        time.sleep(0.5)
    assert reading.mean_w == 4.0
