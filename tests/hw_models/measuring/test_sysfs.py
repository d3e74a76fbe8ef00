"""Tests of clocks and sensors on a made-up file system."""

import csv
from datetime import datetime

import pytest

from hw_models.measuring import measure as sysfs
from hw_models.measuring.measure import Machine

CPU = "sys/devices/system/cpu/cpufreq/policy{}"
GPU = "sys/class/devfreq/17000000.gv11b"
EMC = "sys/kernel/debug/bpmp/debug/clk/emc"
HWMON = "sys/class/hwmon/hwmon{}"
RAPL = "sys/class/powercap/intel-rapl:{}"


def fill(root, folder, **files):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / folder / name).write_text(f"{text}\n")
    return root / folder


def fill_cpu(root, policy=0, low=115200, high=2265600):
    return fill(
        root,
        CPU.format(policy),
        scaling_cur_freq=1190400,
        scaling_min_freq=low,
        scaling_max_freq=high,
        scaling_available_frequencies="2265600 115200 1190400",
    )


def fill_gpu(root):
    fill(root, "sys/class/devfreq/15340000.vic", cur_freq=1, min_freq=1, max_freq=2, available_frequencies="1 2")
    return fill(
        root,
        GPU,
        cur_freq=318750000,
        min_freq=114750000,
        max_freq=1377000000,
        available_frequencies="114750000 318750000 1377000000",
    )


def fill_memory(root):
    fill(root, "sys/kernel/debug/bpmp/debug/emc", possible_rates="204000 2133000 (kHz)")
    return fill(root, EMC, rate=2133000000, min_rate=204000000, max_rate=2133000000, mrq_rate_locked=0)


def contents(folder):
    return {path.name: path.read_text().strip() for path in folder.iterdir()}


def cpu_clock(root):
    return Machine("cpu", root).clocks().get("core_mhz")


def gpu_clock(root):
    return Machine("gpu", root).clocks().get("core_mhz")


def memory_clock(root):
    return Machine("gpu", root).clocks().get("memory_mhz")


def power(root, processor="gpu"):
    """What a machine's power is read from, and the power."""
    meter = Machine(processor, root).meter()
    with meter.read() as reading:
        pass
    return meter.sources, reading.mean_w


@pytest.mark.parametrize("clock", [cpu_clock, gpu_clock, memory_clock])
def test_a_machine_without_a_clock_has_none(clock, tmp_path):
    assert clock(tmp_path) is None


def test_clocks_are_read_in_mhz(tmp_path):
    fill_cpu(tmp_path), fill_gpu(tmp_path), fill_memory(tmp_path)
    cpu, gpu, memory = cpu_clock(tmp_path), gpu_clock(tmp_path), memory_clock(tmp_path)
    assert cpu.available_mhz() == (115.2, 1190.4, 2265.6)
    assert gpu.available_mhz() == (114.75, 318.75, 1377.0)
    assert memory.available_mhz() == (204.0, 2133.0)
    assert [clock.fixed_mhz() for clock in (cpu, gpu, memory)] == [None, None, None]


def test_a_clock_whose_limits_are_equal_is_fixed(tmp_path):
    fill_cpu(tmp_path, low=1190400, high=1190400)
    assert cpu_clock(tmp_path).fixed_mhz() == 1190.4


def test_settings_that_cannot_be_read_are_none(tmp_path):
    folder = fill_cpu(tmp_path)
    (folder / "scaling_available_frequencies").unlink()
    assert cpu_clock(tmp_path).available_mhz() is None


@pytest.mark.parametrize("mhz", [115.2, 1190.4, 2265.6])
def test_a_clock_is_held_in_every_folder_and_restored(mhz, tmp_path):
    folders = [fill_cpu(tmp_path, policy) for policy in (0, 4)]
    before = [contents(folder) for folder in folders]
    clock = cpu_clock(tmp_path)
    with clock.held(mhz):
        assert clock.fixed_mhz() == mhz
        for folder in folders:
            held = contents(folder)
            assert held["scaling_min_freq"] == held["scaling_max_freq"] == f"{1e3 * mhz:.0f}"
    assert [contents(folder) for folder in folders] == before


def test_a_clock_is_restored_after_an_exception(tmp_path):
    folder = fill_gpu(tmp_path)
    before = contents(folder)

    def fail():
        with gpu_clock(tmp_path).held(318.75):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("start", "goal"), [((100, 200), 300), ((200, 300), 100), ((100, 300), 200), ((200, 200), 300)]
)
def test_limits_never_cross_on_the_way_there_and_back(start, goal, tmp_path, monkeypatch):
    settings = "100000 200000 300000"
    folder = fill_cpu(tmp_path, low=1000 * start[0], high=1000 * start[1])
    (folder / "scaling_available_frequencies").write_text(settings)
    write = sysfs.Path.write_text

    def checked(path, text, **how):
        write(path, text, **how)
        found = contents(folder)
        assert int(found["scaling_min_freq"]) <= int(found["scaling_max_freq"])

    monkeypatch.setattr(sysfs.Path, "write_text", checked)
    with cpu_clock(tmp_path).held(goal):
        pass
    assert (int(contents(folder)["scaling_min_freq"]), int(contents(folder)["scaling_max_freq"])) == (
        1000 * start[0],
        1000 * start[1],
    )


def test_the_memory_clock_is_locked_before_it_is_set_and_given_back_last(tmp_path, monkeypatch):
    folder = fill_memory(tmp_path)
    written, write = [], sysfs.Path.write_text

    def recorded(path, text, **how):
        written.append((path.name, text))
        write(path, text, **how)

    monkeypatch.setattr(sysfs.Path, "write_text", recorded)
    clock = memory_clock(tmp_path)
    with clock.held(204):
        assert clock.fixed_mhz() == 204.0
    assert written == [
        ("mrq_rate_locked", "1"),
        ("rate", "204000000"),
        ("rate", "2133000000"),
        ("mrq_rate_locked", "0"),
    ]
    assert contents(folder)["mrq_rate_locked"] == "0"


def test_a_nano_has_its_memory_clock_elsewhere(tmp_path):
    fill(tmp_path, "sys/kernel/debug/clk/override.emc", clk_update_rate=1600000000, clk_state=1)
    clock = memory_clock(tmp_path)
    assert clock.fixed_mhz() == 1600.0
    assert clock.available_mhz() is None


def test_a_setting_that_the_machine_lacks_is_refused_with_those_it_has(tmp_path):
    fill_gpu(tmp_path)
    expected = r"GPU clock: expected one of 114.75 318.75 1377 MHz, got 500"
    with pytest.raises(ValueError, match=expected), gpu_clock(tmp_path).held(500):
        pass


def test_a_clock_that_may_not_be_set_says_what_to_do(tmp_path, monkeypatch):
    folder = fill_gpu(tmp_path)
    before = contents(folder)

    def refuse(path, text, **how):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sysfs.Path, "write_text", refuse)
    with (
        pytest.raises(ValueError, match=r"GPU clock: .*Permission denied.*: run as root, or give no clocks"),
        gpu_clock(tmp_path).held(318.75),
    ):
        pass
    assert contents(folder) == before


def test_a_clock_that_the_machine_caps_is_refused_and_restored(tmp_path, monkeypatch):
    folder = fill_gpu(tmp_path)
    before, write = contents(folder), sysfs.Path.write_text
    monkeypatch.setattr(sysfs.Path, "write_text", lambda path, text, **how: write(path, str(min(int(text), 200000000))))
    with (
        pytest.raises(ValueError, match=r"expected the machine to hold 318.75 MHz, got 200 MHz"),
        gpu_clock(tmp_path).held(318.75),
    ):
        pass
    assert contents(folder)["min_freq"] == before["min_freq"]


def test_rails_of_hwmon_multiply_millivolts_by_milliamperes(tmp_path):
    fill(tmp_path, HWMON.format(0), name="cpu_thermal", in1_label="VDD_IN", in1_input=1, curr1_input=1)
    fill(
        tmp_path,
        HWMON.format(3),
        name="ina3221",
        in1_label="VDD_IN",
        in1_input=5000,
        curr1_input=1200,
        in2_label="VDD_CPU_GPU_CV",
        in2_input=5000,
        in7_label="sum of shunt voltages",
        in7_input=4,
    )
    assert power(tmp_path) == ("VDD_IN", 6.0)


def test_rails_of_older_kernels_are_milliwatts(tmp_path):
    fill(tmp_path, "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0", rail_name_0="POM_5V_IN", in_power0_input=2350)
    assert power(tmp_path) == ("POM_5V_IN", 2.35)


@pytest.mark.parametrize(
    ("chip", "watts"),
    [
        ({"name": "ina3221", "in1_label": "VIN", "in1_input": 19000, "curr1_input": 1, "power1_input": 38500000}, 38.5),
        ({"name": "ina238", "label": "VIN", "in0_input": 1, "in1_input": 19000, "curr1_input": 2000}, 38.0),
    ],
)
def test_rails_whose_kernel_counts_microwatts_are_read_as_such(chip, watts, tmp_path):
    fill(tmp_path, HWMON.format(0), **chip)
    assert power(tmp_path) == ("VIN", watts)


@pytest.mark.parametrize(
    "name", ["57000000.gpu", "17000000.gp10b", "17000000.gv11b", "17000000.ga10b", "gpu-gpc-0", "5000000.qcom,kgsl-3d0"]
)
def test_a_gpu_is_found_by_its_kind(name, tmp_path):
    for other in ("15340000.vic", "gpu-nvd-0", "15480000.nvdec", "soc:qcom,gpubw"):
        fill(tmp_path, f"sys/class/devfreq/{other}", cur_freq=1, min_freq=1, max_freq=1)
    assert gpu_clock(tmp_path) is None
    fill(tmp_path, f"sys/class/devfreq/{name}", cur_freq=306000000, min_freq=306000000, max_freq=306000000)
    assert gpu_clock(tmp_path).fixed_mhz() == 306.0


@pytest.mark.parametrize("name", ["bwmgr", "dmc", "6000c800.actmon", "31b0000.external-memory-controller"])
def test_a_memory_clock_of_devfreq_is_found_by_its_kind(name, tmp_path):
    files = {
        "cur_freq": 204000000,
        "min_freq": 1,
        "max_freq": 3199000000,
        "available_frequencies": "204000000 3199000000",
    }
    fill(tmp_path, f"sys/class/devfreq/{name}", **files)
    assert memory_clock(tmp_path).available_mhz() == (204.0, 3199.0)


def test_cores_that_are_offline_do_not_count(tmp_path):
    fill_cpu(tmp_path, 0)
    fill(tmp_path, CPU.format(4), affected_cpus="", related_cpus="4 5", scaling_available_frequencies="2400000")
    assert cpu_clock(tmp_path).available_mhz() == (115.2, 1190.4, 2265.6)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (5200, r"CPU clock: expected 550 to 4900 MHz, got 5200$"),
        (3000000, r"CPU clock: expected 550 to 4900 MHz, got 3000000: 3,000 MHz if it was in kHz"),
    ],
)
def test_without_a_table_a_clock_is_set_within_the_bounds_of_each_core(asked, message, tmp_path):
    for policy, highest in ((0, 4900000), (8, 3600000)):
        bounds = {"cpuinfo_min_freq": 550000, "cpuinfo_max_freq": highest}
        fill(tmp_path, CPU.format(policy), scaling_min_freq=550000, scaling_max_freq=highest, **bounds)
    clock = cpu_clock(tmp_path)
    with clock.held(4500):
        assert clock.fixed_mhz() == 4500
        assert contents(tmp_path / CPU.format(8))["scaling_max_freq"] == "3600000"
    with pytest.raises(ValueError, match=message), clock.held(asked):
        pass


def test_a_rail_that_vanishes_reads_none(tmp_path):
    folder = fill(tmp_path, HWMON.format(0), name="ina3221", in1_label="GPU", in1_input=1000, curr1_input=1000)
    meter = Machine("gpu", tmp_path).meter()
    (folder / "curr1_input").unlink()
    with meter.read() as reading:
        pass
    assert reading.mean_w is None


@pytest.mark.parametrize(("before", "after", "joules"), [(100, 900, 800e-6), (900, 50, 150e-6)])
def test_energy_counters_are_whole_packages_and_go_round(before, after, joules, tmp_path):
    folder = fill(tmp_path, RAPL.format("0"), name="package-0", energy_uj=before, max_energy_range_uj=1000)
    fill(tmp_path, RAPL.format("0:0"), name="core", energy_uj=1)
    times = iter([100.0, 102.0])
    meter = Machine("cpu", tmp_path).meter()._replace(timer=lambda: next(times))
    with meter.read() as reading:
        (folder / "energy_uj").write_text(f"{after}\n")
    assert (meter.sources, reading.mean_w) == ("package-0", pytest.approx(joules / 2))


def test_a_counter_that_can_no_longer_be_read_is_left_out(tmp_path):
    folder = fill(tmp_path, RAPL.format("0"), name="package-0", energy_uj=1)
    with Machine("cpu", tmp_path).meter().read() as reading:
        (folder / "energy_uj").unlink()
    assert reading.mean_w is None


def test_a_counter_that_may_not_be_read_is_left_out(tmp_path):
    folder = fill(tmp_path, RAPL.format("0"), name="package-0", max_energy_range_uj=1000)
    (folder / "energy_uj").mkdir()  # unreadable whoever runs the test
    assert Machine("cpu", tmp_path).meter() is None


def test_the_clocks_that_run_now_are_read(tmp_path):
    fill_cpu(tmp_path), fill_gpu(tmp_path), fill_memory(tmp_path)
    fill(tmp_path, CPU.format(4), scaling_cur_freq=2000000, scaling_available_frequencies="2265600 115200")
    wanted = {"core_mhz": 318.75, "memory_mhz": 2133.0, "host_mhz": 2000.0}  # of the fastest cores, those that work
    assert Machine("gpu", tmp_path).state().clocks == wanted


def test_a_machine_that_shows_nothing_has_no_state(tmp_path):
    assert Machine("cpu", tmp_path).state() == sysfs.State({})


def test_throttling_is_counted_wherever_it_shows(tmp_path):
    here = Machine("cpu", tmp_path)
    for core in (0, 1):
        folder = f"sys/devices/system/cpu/cpu{core}/thermal_throttle"
        fill(tmp_path, folder, core_throttle_count=3, package_throttle_count=1, core_throttle_max_time_ms=99)
    assert here.state().throttled == 8
    fill(tmp_path, HWMON.format(2), oc1_event_cnt=2, oc2_event_cnt=0)
    assert here.state().throttled == 10
    for i, (kind, steps) in enumerate({"pwm-fan": 200, "cpu-balanced": 2, "intel_powerclamp": -1}.items()):
        fill(tmp_path, f"sys/class/thermal/cooling_device{i}", type=kind, cur_state=steps)
    assert here.state().throttled == 12
    fill(tmp_path, "sys/devices/platform/soc/soc:firmware", get_throttled="50005")  # Raspberry Pi: two of them now
    assert here.state().throttled == 14


def test_the_temperature_is_of_the_hottest_sensor_that_can_be_believed(tmp_path):
    zones = {"CPU-therm": 61500, "GPU-therm": 58000, "PMIC-Die": 100000, "CV-therm": -256000, "broken": 999000}
    for i, (kind, value) in enumerate(zones.items()):
        fill(tmp_path, f"sys/class/thermal/thermal_zone{i}", type=kind, temp=value)
    assert Machine("gpu", tmp_path).state().temperature_c == 61.5


LOG = {
    "of JetPack 4": "RAM 2460/7772MB SWAP 0/3886MB CPU [9%@1420,3%@1420] PLL@40C VDD_IN {}/2532 VDD_SOC 9/9",
    "of JetPack 5": "11-30-2026 19:00:00 RAM 2460/7772MB gpu@45C VDD_IN {}mW/2532mW VDD_CPU_GPU_CV 9mW/9mW",
}


@pytest.mark.parametrize("line", LOG.values(), ids=LOG)
def test_power_is_what_tegrastats_logs_meanwhile(line, tmp_path):
    log = tmp_path / "tegrastats.log"
    log.write_text(line.format(900) + "\n")
    meter = sysfs.LogMeter.of(log, "gpu")
    assert (meter.rail, meter.labels) == ("board", ("VDD_IN",))
    with meter.read() as reading, log.open("a") as file:
        file.write("".join(line.format(milliwatts) + "\n" for milliwatts in (800, 5000, 7000)) + line[:80])
    assert reading.mean_w == 6.0
    with meter.read() as reading:
        pass
    assert reading.mean_w is None


def test_the_rails_of_a_log_are_chosen_as_those_of_the_machine(tmp_path):
    log = tmp_path / "tegrastats.log"
    log.write_text("RAM 1/2MB VDD_GPU_SOC 100mW/1mW VDD_CPU_CV 20mW/1mW VIN_SYS_5V0 3mW/1mW VDDQ_VDD2_1V8AO 4mW/1mW\n")
    assert sysfs.LogMeter.of(log, "gpu").sources == f"VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0 of {log}"
    log.write_text("RAM 1/2MB VDD_CPU_GPU_CV 20mW/1mW\n")
    with pytest.raises(
        ValueError,
        match="expected lines of tegrastats, or of jtop's CSV logger, with the power of the board or of the ",
    ):
        sysfs.LogMeter.of(log, "gpu")


def jtop_log(path, rails, total, *, at=None, header=True):
    """Adds a line as `jtop`'s CSV logger writes it: all of its statistics, the rails' powers in mW."""
    stats = {
        "time": at or datetime.now(),
        "uptime": "1 day, 2:03:04",
        "CPU1": 12,
        "CPU2": "OFF",
        "RAM": 0.31,
        "GPU": 97.0,
    }
    stats |= {"Fan pwmfan0": 40.0, "Temp CPU": 51.5} | {f"Power {name}": watts for name, watts in rails.items()}
    stats |= {"Power TOT": total, "jetson_clocks": "OFF", "nvp model": "MODE_15W_6CORE"}
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, stats)
        if header:
            writer.writeheader()
        writer.writerow(stats)


def test_power_is_what_jtop_logs_meanwhile_and_not_what_it_wrote_late(tmp_path):
    log, rails = tmp_path / "jtop.csv", {"VDD_CPU_GPU_CV": 4000, "VDD_SOC": 1500}
    jtop_log(log, rails, 7500)
    meter = sysfs.LogMeter.of(log, "gpu")
    assert (meter.rail, meter.sources) == ("board", f"TOT of {log}")
    with meter.read() as reading:
        jtop_log(log, rails, 9000, at=datetime(2026, 1, 1, microsecond=1), header=False)
        for total in (7000, 8000):
            jtop_log(log, rails, total, header=False)
        with log.open("a", encoding="utf-8") as file:
            file.write(str(datetime.now()))
    assert reading.mean_w == 7.5
    with meter.read() as reading:
        pass
    assert reading.mean_w is None


def test_a_total_of_jtop_that_counts_a_rail_twice_is_not_taken(tmp_path):
    log = tmp_path / "jtop.csv"
    orin = {"VDD_GPU_SOC": 100, "VDD_CPU_CV": 20, "VIN_SYS_5V0": 30, "VDDQ_VDD2_1V8AO": 7}
    jtop_log(log, orin, 157)
    assert sysfs.LogMeter.of(log, "gpu").labels == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    log.unlink()
    jtop_log(log, {"VDD_SOC": 100, "VDD_OTHER": 20}, 120)
    with pytest.raises(ValueError, match="with the power of the board or of the GPU, got 2 lines without"):
        sysfs.LogMeter.of(log, "gpu")
