"""Tests of the device file's schema: every wrong file gives one line that names the field."""

import copy
import functools
import importlib.resources

import pytest
import yaml

from hw_models.files import checked
from hw_models.schema import DeviceFile

parse = functools.partial(checked, model=DeviceFile, version=1)

REMOVE = object()
CASES = [
    # path, new value, message
    ("power.board", REMOVE, "power.board: expected a value, got nothing"),
    ("latency", REMOVE, "expected latency of a roofline, or blocks of a table, got nothing"),
    ("schema_version", REMOVE, "schema_version: expected a value, got nothing"),
    ("schema_version", 2, "schema_version: expected 1, got 2"),
    ("schema_version", "one", "schema_version: expected 1, got 'one'"),
    ("schema_version", True, "schema_version: expected 1, got True"),
    ("name", "My Board", "name: expected text that matches ^[a-z0-9][a-z0-9-]*$, got 'My Board'"),
    ("name", 5, "name: expected text, got 5"),
    ("power.board", 3, "power.board: expected a mapping of fields, got 3"),
    ("latency", [1], "latency: expected a mapping of fields, got [1]"),
    ("power.board.value", -1, "power.board.value: expected a number of at least 0, got -1"),
    ("power.board.value", "abc", "power.board.value: expected a number, got 'abc'"),
    ("power.board.value", "two\nlines", "power.board.value: expected a number, got 'two\\nlines'"),
    ("power.board.value", None, "power.board.value: expected a number, got nothing"),
    ("power.board.value", True, "power.board.value: expected a number, got True"),
    ("power.board.value", float("nan"), "power.board.value: expected a finite number, got nan"),
    ("power.board.value", float("inf"), "power.board.value: expected a finite number, got inf"),
    ("power.board.value", ".nan", "power.board.value: expected a number, got '.nan'"),
    ("power.board.value", "nan", "power.board.value: expected a finite number, got 'nan'"),
    (
        "power.board.value",
        1e300,
        "power.board.value: expected a number of magnitude 1e-12 to 1e+12, got 1e+300",
    ),
    (
        "power.core_stalled_share.value",
        1.5,
        "power.core_stalled_share.value: expected a number of at most 1, got 1.5",
    ),
    (
        "latency.macs_per_cycle.dense.value",
        0,
        "latency.macs_per_cycle.dense.value: expected a number above 0, got 0",
    ),
    (
        "latency.norm_order.value",
        0.5,
        "latency.norm_order.value: expected a number of at least 1, got 0.5",
    ),
    ("power.board.unit", "mW", "power.board.unit: expected 'W', got 'mW'"),
    (
        "power.board.provenance",
        "guessed",
        "power.board.provenance: expected 'measured', 'fitted' or 'assumed', got 'guessed'",
    ),
    ("power.board.source", "", "power.board.source: expected text that is not empty, got ''"),
    ("power.board.source", REMOVE, "power.board.source: expected a value, got nothing"),
    ("powr", 1, "powr: expected no field of this name (known here: schema_version, name, description,"),
    ("power.board.sorce", "x", "power.board.sorce: expected no field of this name (known here: provenance,"),
    (
        "power.core_load.error.x",
        1,
        "power.core_load.error.x: expected no field of this name (known here: value,",
    ),
    ("power.core_load.error", REMOVE, "power.core_load: expected an 'error' beside a fitted figure, got {"),
    ("modes.10w.core.value", 50, "expected modes.10w.core.value of at least 114.75 MHz, the lowest setting, got 50"),
    (
        "latency.format_speedup",
        {},
        "latency.format_speedup: expected at least one of fp32, fp16, int8, got {}",
    ),
    ("modes.10w.gpu", 1, "modes.10w.gpu: expected no field of this name (known here: core, memory, host)"),
    ("modes.10w.core.x", 1, "modes.10w.core.x: expected no field of this name (known here: provenance,"),
    ("latency.format_speedup.fp16.x", 1, "latency.format_speedup.fp16.x: expected no field of this name"),
    ("clocks.core.value", [], "clocks.core.value: expected at least 1 value, got []"),
    ("clocks.core.value", 5, "clocks.core.value: expected a list, got 5"),
    ("clocks.core.value", [20, 10], "clocks.core.value: expected strictly ascending numbers, got [20, 10]"),
    ("clocks.host.value", [10, 10], "clocks.host.value: expected strictly ascending numbers, got [10, 10]"),
    ("clocks.memory.value", [10, "x"], "clocks.memory.value.1: expected a number, got 'x'"),
    ("clocks.memory.value", [-2, 1], "clocks.memory.value.0: expected a number above 0, got -2"),
    ("power.host.value", [1], "power.host: expected as many values as clocks, got {"),
    ("power.host.value", [3, 1], "power.host.value: expected numbers that do not fall, got [3, 1]"),
    (
        "power.core_voltage.value",
        [0.5, 1],
        "power.core_voltage.value.0: expected a number of at least 1, got 0.5",
    ),
    (5, 1, "5: expected text as the name of a field, got 5"),
    (
        "clocks.core.value",
        [114750, 1377000],
        "clocks.core.value.0: expected a clock in MHz, 10 to 20,000 (114.75 MHz if it was in kHz), got 114750 (and",
    ),
    ("clocks.host.value", [0.1152, 2.2656], "clocks.host.value.0: expected a clock in MHz, 10 to 20,000 (115.2 MHz if"),
    (
        "modes.10w.core.value",
        520e6,
        "modes.10w.core.value: expected a clock in MHz, 10 to 20,000 (520 MHz if it was in",
    ),
    ("power.core_voltage.clock", [0.1, 0.2, 0.3], "power.core_voltage.clock.0: expected a clock in MHz"),
    ("power.board.value", 2500, "power.board.value: expected a power in W, 0 to 2,000 (2.5 W if it was in mW"),
    ("power.host.value", [246, 2870], "power.host.value.1: expected a power in W, 0 to 2,000 (2.87 W if it was in mW"),
    (
        "power.core_load.value",
        11690,
        "expected power.core_load.value to give at most 2,000 W at the highest clocks (11.69 mW/MHz if it",
    ),
    (
        "power.memory_clock.value",
        1780,
        "expected power.memory_clock.value to give at most 2,000 W at the highest clocks",
    ),
    (
        "power.byte_energy.value",
        89000,
        "expected power.byte_energy.value to give at most 2,000 W at the highest clocks",
    ),
    (
        "latency.activation_bytes_per_cycle.value",
        34.3e9,
        "expected latency.activation_bytes_per_cycle.value to give 0.001 to 1,000,000 GB/s at the highest memory clock",
    ),
]


@pytest.fixture(scope="module")
def content():
    folder = importlib.resources.files("hw_models") / "devices"
    # Through text, so that figures that share an error in the file do not share it here.
    return copy.deepcopy(
        yaml.safe_load(yaml.dump(yaml.safe_load((folder / "agx-xavier-gpu.yaml").read_text()), Dumper=NoAliases))
    )


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


@pytest.mark.parametrize(("path", "value", "message"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_a_wrong_field_is_named_in_one_line(content, path, value, message):
    wrong = copy.deepcopy(content)
    *folders, last = path.split(".") if isinstance(path, str) else [path]
    target = wrong
    for folder in folders:
        target = target[folder]
    if value is REMOVE:
        del target[last]
    else:
        target[last] = value
    with pytest.raises(ValueError, match=r"^[^\n]*\Z") as caught:
        parse(wrong)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_a_file_that_is_no_mapping_is_refused(content):
    with pytest.raises(ValueError, match=r"^expected a mapping of fields, got [^\n]*\Z"):
        parse(content)


def test_further_errors_are_counted(content):
    wrong = copy.deepcopy(content)
    del wrong["power"]["board"], wrong["power"]["host"]
    with pytest.raises(ValueError, match=r"^power.board: expected a value, got nothing \(and 1 more\)\Z"):
        parse(wrong)


def test_numbers_may_be_written_with_an_exponent(content):
    # YAML 1.1 reads 1e1, without a dot, as text.
    right = copy.deepcopy(content)
    right["power"]["board"]["value"] = "1e1"
    assert parse(right).power.board.value == 10
