"""Tests of `hadas devices`: what a user sees, and one line for each mistake."""

import io
import itertools
import re

import jax
import numpy as np
import pytest
import yaml
from failing_commands import fails
from rich.console import Console

import hw_models as hw
from hadas_jax import profiling
from hadas_jax.cli import main
from hadas_jax.commands import devices as device_commands
from hw_models.fitting import calibration
from hw_models.measuring import Measurement, format_layers, measure, read_measurements, write_measurements
from hw_models.reference_networks import mobilenet_v2


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")


@pytest.fixture(scope="module")
def rows():
    """Measurements of 8 networks, twice as slow as on the Raspberry Pi 4."""
    device, cost = hw.load_device("raspberry-pi-4"), jax.jit(hw.network_cost)
    rows = []
    for i, resolution in enumerate((64, 96, 128, 160, 192, 224, 256, 288)):
        layers = mobilenet_v2(resolution)
        latency_s = float(cost(layers, device, hw.default_point(device)).latency_s)
        text = format_layers(layers)
        rows.append(Measurement(network=f"m{i}", family=f"f{i % 4}", layers=text, latency_ms=2e3 * latency_s))
    return rows


@pytest.fixture
def measured(rows, tmp_path):
    """A file of them."""
    write_measurements(tmp_path / "m.csv", rows)
    return "m.csv"


def written(call, **arguments):
    """What a call prints, on a wide console."""
    console = Console(file=io.StringIO(), width=200)
    call(console=console, **arguments)
    return console.file.getvalue()


def test_the_list_names_every_device_with_its_modes():
    text = written(device_commands.list_devices)
    assert all(name in text for name in hw.device_names())
    assert "maxq" in text


def test_a_device_is_shown_with_the_origin_of_every_figure_and_its_modes(tmp_path):
    text = written(device_commands.show_device, device="tx2-gpu", plot=tmp_path / "tx2.png")
    assert "macs_per_cycle.dense" in text
    assert "thynics/jetson_dvfs" in text
    assert "854.25" in text
    assert (tmp_path / "tx2.png").read_bytes().startswith(b"\x89PNG")


def test_brackets_in_a_users_file_are_shown_as_they_stand(tmp_path):
    content = hw.read_device_file("x86-cpu").model_dump(exclude_none=True)
    content["clocks"]["core"]["source"] = "see [/home/me/notes.txt] [MIT]"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    text = written(device_commands.show_device, device="mine.yaml")
    assert "see [/home/me/notes.txt] [MIT]" in text


def test_a_picture_is_not_overwritten(capsys, tmp_path):
    (tmp_path / "x.png").write_text("mine")
    assert "x.png: expected a new picture" in fails(["devices", "show", "tx2-gpu", "--plot", "x.png"], capsys)
    assert (tmp_path / "x.png").read_text() == "mine"


def test_a_fitted_device_loads_and_predicts_what_was_measured(measured, tmp_path):
    text = written(device_commands.fit_device, measurements=measured, output="My Board.yaml", base="raspberry-pi-4")
    assert "families" in text
    assert "hadas search --device 'My Board.yaml'" in text
    device = hw.load_device("My Board.yaml")
    assert device.name == "my-board"
    assert hw.read_device_file("My Board.yaml").measured_on is None
    before = hw.load_device("raspberry-pi-4")
    costs = [hw.network_cost(mobilenet_v2(), some, hw.default_point(some)) for some in (device, before)]
    assert float(costs[0].latency_s / costs[1].latency_s) == pytest.approx(2, rel=0.02)
    assert (tmp_path / "My Board.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_base_the_nearest_device_is_taken(measured, monkeypatch):
    seen = []
    monkeypatch.setattr(calibration, "calibrate", lambda rows, base, **_: seen.append(base.name) or _stop())
    with pytest.raises(KeyboardInterrupt):
        device_commands.fit_device(measured, "my.yaml", console=Console(file=io.StringIO()))
    assert seen == ["raspberry-pi-4"]


def _stop():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("devices lst", "unknown command 'devices lst': expected devices list, devices kit, devices fit"),
        ("devices show", "Missing from hadas devices show: DEVICE"),
        ("devices show toaster", "expected one of agx-orin-gpu"),
        ("devices show none.yaml", "none.yaml: expected a readable file"),
        ("devices show tx2-gpu --plot x.jpg", "x.jpg: expected a picture that ends in .png, got '.jpg'"),
        ("devices show tx2-gpu --plot no/x.png", "no/x.png: expected a folder that exists, got no"),
        ("devices fit none.csv -o my.yaml", "none.csv: expected a readable CSV file"),
        ("devices fit m.csv", "-o"),
        ("devices fit m.csv -o my.json", "my.json: expected a device file that ends in .yaml, got '.json'"),
        ("devices fit m.csv -o my.yaml --base toaster", "expected one of agx-orin-gpu"),
        ("devices fit m.csv -o my.yaml --prior-sigma 0", "--prior-sigma: expected a number above 0, got 0"),
        ("devices fit m.csv -o my.yaml --name My", "--name: expected lower-case letters, digits and hyphens, got 'My'"),
        ("devices profile -o no/new.csv", "no/new.csv: expected a folder that exists, got no"),
        ("devices profile -o m.csv", "m.csv: expected a new file, got one that exists: --resume continues it"),
        ("devices profile -o new.csv --resume", "new.csv: expected measurements to continue, got no such file"),
        ("devices profile -o new.csv --networks -1", "networks"),
        ("devices profile -o new.csv --space outer", "unknown space 'outer'"),
    ],
)
def test_a_mistake_ends_with_one_line_and_exit_code_2(arguments, message, measured, capsys, tmp_path):
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert message in fails(arguments.split(), capsys)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "m.csv: expected a CSV file with the columns network, layers, latency_ms, got an empty file"),
        ("network,layers,latency_ms\n", "m.csv: expected measurements, got a header and no rows"),
        ("network,layers,latency_ms\na,dense 1e6 9 9 9 1,2\n", "got 1 row of one network at one setting"),
        ("network,layers\na,dense 1 1 1 1 1\n", "m.csv: expected the column latency_ms, got network, layers"),
        ("network,layers,latency_ms\na,dense 1 1 1 1 1,-2\n", "m.csv, line 2: latency_ms: expected a number above 0"),
        ("network,layers,latency_ms,core_mhz\na,dense 1 1 1 1 1,2,77\n", "a: core_mhz: expected a setting of tx2-gpu"),
    ],
)
def test_measurements_that_cannot_be_fitted_are_named(content, message, capsys, tmp_path):
    (tmp_path / "m.csv").write_text(content)
    assert message in fails(["devices", "fit", "m.csv", "--base", "tx2-gpu", "-o", "my.yaml"], capsys)
    assert not (tmp_path / "my.yaml").exists()


def test_a_fitted_file_is_overwritten_only_when_asked(measured, capsys, tmp_path):
    (tmp_path / "my.yaml").write_text("mine")
    assert "my.yaml: expected a new device file, got one that exists" in fails(
        ["devices", "fit", measured, "-o", "my.yaml"], capsys
    )
    assert (tmp_path / "my.yaml").read_text() == "mine"


@pytest.mark.parametrize("runtime", ["onnxruntime", "jax"])
def test_a_profile_of_this_machine_can_be_fitted(runtime, listed_space):
    console = Console(file=io.StringIO(), width=200)
    profile = device_commands.profile_machine(
        "here.csv", space="tiny", networks=2, layers=1, rounds=1, runtime=runtime, console=console
    )
    rows = profile.rows
    assert (profile.inconclusive, profile.exit_code) == ((), 0)
    assert rows == read_measurements("here.csv")
    assert all(row.latency_ms > 0 for row in rows)
    assert {(row.runtime, row.provider, row.kit is None) for row in rows} == {(runtime, "CPU", runtime == "jax")}
    paths = {row.network.partition("/")[0] for row in rows if "/" in row.network}
    assert len(paths) == (2 if runtime == "onnxruntime" else 0)
    assert len([row for row in rows if "/" not in row.network]) == 8
    for path in paths:
        prefixes = [row for row in rows if row.network.startswith(f"{path}/")]
        assert [row.segments for row in prefixes] == list(range(1, len(prefixes) + 1))
        assert all(one.latency_ms < other.latency_ms for one, other in itertools.pairwise(prefixes))
        assert all(other.layers.startswith(f"{one.layers};") for one, other in itertools.pairwise(prefixes))
    if runtime == "jax":
        return
    calibration = device_commands.fit_device("here.csv", "here.yaml", base="x86-cpu", console=console)
    assert np.isfinite(calibration.held_out[0].latency_error)
    assert hw.load_device("here.yaml").name == "here"
    assert hw.read_device_file("here.yaml").measured_on == profiling.this_machine().name


def test_a_profile_with_disturbed_networks_ends_with_exit_code_1_and_says_which(listed_space, capsys, monkeypatch):
    monkeypatch.setattr(measure, "disturbance", lambda timing, held: "core_mhz moved from 1 to 2 MHz")
    few = ["--networks", "1", "--layers", "0", "--rounds", "1"]
    with pytest.raises(SystemExit) as stop:
        main(["devices", "profile", "-o", "here.csv", "--space", "tiny", *few])
    printed = capsys.readouterr().out
    assert stop.value.code == 1
    assert "has no row: core_mhz moved from 1 to 2 MHz" in printed
    assert re.search(r"INCONCLUSIVE: (\d+) of \1 networks lack a row; --resume measures them again", printed)


def test_a_profile_goes_on_with_the_same_kit_alone(listed_space, capsys):
    design = ["devices", "profile", "-o", "here.csv", "--space", "tiny", "--layers", "0", "--rounds", "1"]
    main([*design, "--networks", "1"])
    assert "here.csv: expected rows of kit " in fails([*design, "--resume", "--networks", "2"], capsys)
    assert "here.csv: expected rows of runtime jax, got onnxruntime: write to another file" in fails(
        [*design, "--resume", "--networks", "1", "--runtime", "jax"], capsys
    )


def test_measurements_of_several_machines_make_a_device_of_none(rows):
    machines = ["a"] * 7 + ["b"]
    mixed = [row.model_copy(update={"machine": name}) for row, name in zip(rows, machines, strict=True)]
    device_commands.fit_device(mixed, "my.yaml", base="raspberry-pi-4", console=Console(file=io.StringIO()))
    assert hw.read_device_file("my.yaml").measured_on is None


@pytest.mark.slow
def test_a_table_of_blocks_is_written_shown_and_fitted_and_has_no_place_for_other_networks(capsys):
    main(["devices", "blocks", "-o", "t.csv", "--space", "digits", "--resolution", "8", "--device", "x86-cpu"])
    assert "117 blocks of digits" in capsys.readouterr().out
    assert "t.csv: expected a new table" in fails("devices blocks -o t.csv", capsys)
    main(["devices", "show", "t.csv"])
    printed = capsys.readouterr().out
    assert "Table of 118 measured blocks" in printed
    assert "expanded_conv" in printed
    main(["devices", "fit", "t.csv", "--base", "x86-cpu", "-o", "fitted.yaml"])
    assert hw.read_device_file("fitted.yaml").blocks is None
    assert "calibrated from x86-cpu with 117 measurements" in hw.read_device_file("fitted.yaml").description
    capsys.readouterr()
    for command in ("dnas price DARTS_V2 --device t.csv", "devices show t.csv --plot p.png"):
        assert "t: expected a device with a roofline, got a table of blocks" in fails(command, capsys)
