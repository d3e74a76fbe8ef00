"""Tests of measurement files: they round-trip, and every wrong one gives a line that says where and why."""

import numpy as np
import pytest

from hw_models.measuring.measurements import (
    Measurement,
    format_layers,
    layer_tables,
    read_measurements,
    write_measurements,
)

LAYERS = "dense 1000 10 20 30 1;linear 50 5 5 10 1"
GOOD = {"network": "a", "layers": LAYERS, "latency_ms": "1.5"}


def write(path, *rows, header=None):
    names = header or list(rows[0])
    lines = [",".join(names), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_round_trip_through_a_file(tmp_path):
    rows = [
        Measurement(network="a", layers=LAYERS, latency_ms=1.25, core_mhz=1377, power_w=9.5, power_rail="core", runs=7),
        Measurement(network="b", layers=LAYERS, latency_ms=0.5, family="f", batch=4, format="fp16", spread_ms=0),
    ]
    path = tmp_path / "m.csv"
    write_measurements(path, rows[:1])
    write_measurements(path, rows[1:], append=True)
    assert read_measurements(path) == rows
    assert [row.group for row in rows] == ["a", "f"]


def test_what_ran_a_network_round_trips_and_older_files_say_nothing_of_it(tmp_path):
    deployed = {"segments": 3, "p95_ms": 2.5, "p99_ms": 4.0, "temperature_c": 61.5, "kit": "0123456789ab"}
    runtime = {"runtime": "onnxruntime", "runtime_version": "1.20.1", "provider": "CPU"}
    row = Measurement(network="a", layers=LAYERS, latency_ms=2.0, **deployed, **runtime)
    write_measurements(tmp_path / "new.csv", [row])
    assert read_measurements(tmp_path / "new.csv") == [row]
    (old,) = read_measurements(write(tmp_path / "old.csv", GOOD))
    assert (old.segments, old.p95_ms, old.runtime, old.kit) == (1, None, None, None)


def test_a_file_is_not_overwritten_unasked(tmp_path):
    path = write(tmp_path / "m.csv", GOOD)
    with pytest.raises(ValueError, match=r"m.csv: expected a new file, got one that exists; nothing was written"):
        write_measurements(path, [])


def test_layers_round_trip_and_inactive_rows_are_left_out(mobilenet):
    half = mobilenet.replace(active=mobilenet.active.at[::2].set(0.0))
    text = format_layers(half)
    tables = layer_tables([Measurement(network="n", layers=text, latency_ms=1)])
    kept = np.asarray(half.active) > 0
    for name in ("kind", "macs", "weight_elements", "input_elements", "output_elements", "kernels"):
        np.testing.assert_array_equal(getattr(tables, name)[0], np.asarray(getattr(mobilenet, name))[kept])


def test_networks_of_different_lengths_are_padded_with_inactive_rows():
    rows = [Measurement(network=name, layers=text, latency_ms=1) for name, text in (("a", LAYERS), ("b", LAYERS[:21]))]
    tables = layer_tables(rows)
    assert tables.macs.shape == (2, 2)
    assert tables.active.tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latency_ms": "-1"}, "line 2: latency_ms: expected a number above 0, got '-1'"),
        ({"latency_ms": "0"}, "line 2: latency_ms: expected a number above 0, got '0'"),
        ({"latency_ms": "fast"}, "line 2: latency_ms: expected a number, got 'fast'"),
        ({"latency_ms": "nan"}, "line 2: latency_ms: expected a finite number, got 'nan'"),
        ({"latency_ms": ""}, "line 2: latency_ms: expected a value, got nothing"),
        ({"network": " "}, "line 2: network: expected a value, got nothing"),
        ({"batch": "0"}, "line 2: batch: expected a number of at least 1, got '0'"),
        ({"batch": "1.5"}, "line 2: batch: expected a whole number, got '1.5'"),
        ({"segments": "0"}, "line 2: segments: expected a number of at least 1, got '0'"),
        ({"runtime": "tflite"}, "line 2: runtime: expected 'onnxruntime', 'tensorrt' or 'jax', got 'tflite'"),
        ({"temperature_c": "61500"}, "line 2: temperature_c: expected a number of at most 300.0, got '61500'"),
        ({"format": "fp64"}, "line 2: format: expected 'fp32', 'fp16' or 'int8', got 'fp64'"),
        ({"power_rail": "soc"}, "line 2: power_rail: expected 'board' or 'core', got 'soc'"),
        (
            {"layers": "conv 1 2 3 4 5"},
            "line 2: layers: expected a layer as .* a kind among dense, .*, linear, got 'conv 1 2 3 4 5'",
        ),
        (
            {"layers": "dense 1 2 3 4"},
            "line 2: layers: expected a layer as `KIND macs weight_elements .*, got 'dense 1 2 3 4'",
        ),
        (
            {"layers": "dense 1 2 x 4 5"},
            "line 2: layers: expected numbers behind the kind of a layer, got 'dense 1 2 x 4 5'",
        ),
        (
            {"layers": "dense 1 2 -3 4 5"},
            "line 2: layers: expected numbers from 0 to 1e15 behind the kind of a layer, got 'dense 1",
        ),
        ({"core_gb": "1"}, "m.csv: expected columns among network, .*, got 'core_gb'"),
        (
            {"core_mhz": "1300500"},
            r"line 2: core_mhz: expected a clock in MHz, 10 to 20,000 \(1,300.5 MHz if it was in kHz\), got '1300500'",
        ),
        (
            {"core_mhz": "1.3005e+09"},
            r"core_mhz: expected a clock .* \(1,300.5 MHz if it was in Hz\), got '1.3005e\+09'",
        ),
        ({"memory_mhz": "1.866"}, r"memory_mhz: expected a clock .* \(1,866 MHz if it was in GHz\), got '1.866'"),
        ({"power_w": "5250"}, r"power_w: expected a power in W, .* to 2,000 \(5.25 W if it was in mW .*\), got '5250'"),
        ({"latency_ms": "2.5e6"}, r"latency_ms: expected a latency in ms, .* \(2,500 ms if it was in us or 2.5 ms if"),
    ],
)
def test_every_wrong_cell_is_named_in_one_line(tmp_path, change, message):
    path = write(tmp_path / "m.csv", {**GOOD, **change})
    with pytest.raises(ValueError, match=message) as caught:
        read_measurements(path)
    assert "\n" not in str(caught.value)


def test_other_units_are_converted_exactly(tmp_path):
    names = ["Network", "layers", "Latency (µs)", "Power [mW]", "core_kHz", "memory (GHz)"]
    (tmp_path / "m.csv").write_text(f"{','.join(names)}\na,{LAYERS},1234.5,5250,1300500,1.866\n", encoding="utf-8")
    wanted = {"latency_ms": 1.2345, "power_w": 5.25, "core_mhz": 1300.5, "memory_mhz": 1866.0}
    assert read_measurements(tmp_path / "m.csv") == [Measurement(network="a", layers=LAYERS, **wanted)]


def test_rows_are_appended_to_a_file_of_this_project_alone(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("network;layers;latency_ms\n")
    with pytest.raises(ValueError, match="expected a header as this project writes it, to append to, got"):
        write_measurements(path, [Measurement(network="a", layers=LAYERS, latency_ms=1)], append=True)
    assert path.read_text() == "network;layers;latency_ms\n"


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none.csv: expected a readable CSV file, got: No such file"):
        read_measurements(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="with the columns network, layers, latency_ms, got an empty file"):
        read_measurements(tmp_path / "empty.csv")
    with pytest.raises(ValueError, match="expected measurements, got a header and no rows"):
        read_measurements(write(tmp_path / "head.csv", header=list(GOOD)))
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="expected text in UTF-16-LE, got other bytes in line 1"):
        read_measurements(tmp_path / "bytes.csv")
    no_latency = {name: GOOD[name] for name in ("network", "layers")}
    with pytest.raises(ValueError, match="expected the column latency_ms, got network, layers"):
        read_measurements(write(tmp_path / "m.csv", no_latency))
    (tmp_path / "long.csv").write_text(f"network,layers,latency_ms\na,{LAYERS},1,2\n")
    with pytest.raises(ValueError, match="line 2: expected as many values as columns"):
        read_measurements(tmp_path / "long.csv")


def test_a_parsed_network_is_its_numbers():
    table = layer_tables([Measurement(network="a", layers="linear 50 5 6 10 1", latency_ms=1)])
    columns = (table.kind, table.macs, table.weight_elements, table.input_elements, table.output_elements)
    assert [column.tolist() for column in columns] == [[[5]], [[50.0]], [[5.0]], [[6.0]], [[10.0]]]


def test_rows_are_appended_under_the_columns_that_a_file_has(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("network,latency_ms,layers\nold,1.0,dense 1 1 1 1 1\n")
    row = Measurement(network="new", layers="dense 2 1 1 1 1", latency_ms=2.0, machine="here")
    write_measurements(path, [row], append=True)
    found = read_measurements(path)
    assert [(each.network, each.latency_ms, each.machine) for each in found] == [("old", 1.0, None), ("new", 2.0, None)]


def test_a_file_without_a_place_for_what_was_measured_is_left_as_it_is(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text("network,layers,latency_ms\nold,dense 1 1 1 1 1,2\n")
    row = Measurement(network="new", layers="dense 1 1 1 1 1", latency_ms=2.0, power_w=3.0, power_rail="core")
    with pytest.raises(ValueError, match="expected columns power_w, power_rail to append to, got none"):
        write_measurements(path, [row], append=True)
    assert path.read_text() == "network,layers,latency_ms\nold,dense 1 1 1 1 1,2\n"
