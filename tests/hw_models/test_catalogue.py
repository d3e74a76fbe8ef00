"""Conformance of every device of the catalogue, and the reading of files."""

import dataclasses
import importlib.resources
import itertools
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import hw_models as hw
from hw_models.device import NumberFormat
from hw_models.layers import LayerKind

FOLDER = importlib.resources.files("hw_models") / "devices"


@pytest.fixture(scope="module", params=hw.device_names())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def device(name):
    return hw.load_device(name)


@pytest.fixture(scope="module")
def priced():
    return jax.jit(jax.vmap(hw.network_cost, in_axes=(None, None, 0)))


def test_a_device_bears_the_name_of_its_file(name, device):
    assert device.name == name


def test_a_device_has_finite_numbers_in_range(device):
    roofline = dataclasses.replace(device, correction=None)
    assert all(np.all(np.isfinite(leaf)) and np.all(leaf >= 0) for leaf in jax.tree.leaves(roofline))
    assert device.macs_per_cycle.shape == (len(LayerKind),)
    assert device.format_speedup.shape == (len(NumberFormat),)
    for clocks in (device.core_hz, device.memory_hz, device.host_hz):
        assert np.all(clocks > 1e7)
        assert np.all(np.diff(clocks) > 0)


def test_a_device_is_fastest_at_its_highest_clocks_and_draws_least_at_the_lowest(device, mobilenet, priced):
    tables = (device.core_hz, device.memory_hz, device.host_hz)
    ends = np.array(list(itertools.product(*((0, len(table) - 1) for table in tables))), np.int32)
    points = hw.operating_point(device, ends)
    # Costs depend on no table of clocks and no name: devices that are alike otherwise are compiled once.
    costs = priced(mobilenet, device.replace(name="", core_hz=0.0, memory_hz=0.0, host_hz=0.0), points)
    power = np.asarray(costs.energy_j / costs.latency_s)
    assert costs.latency_s[7] == costs.latency_s.min()
    assert power[0] == power.min()
    assert 0.1 < power.min() < power.max() < 100
    assert 1e-4 < costs.latency_s.min() < costs.latency_s.max() < 10


def test_every_figure_of_a_device_says_where_it_comes_from(name):
    file = hw.read_device_file(name)
    figures = list(walk(file))
    assert len(figures) > 20
    assert all(len(figure.source) > 5 for figure in figures)


def walk(node):
    if hasattr(node, "provenance"):
        yield node
    elif hasattr(node, "model_fields_set"):
        for field in type(node).model_fields:
            yield from walk(getattr(node, field))


def test_the_kinds_and_formats_of_the_schema_are_those_of_the_model():
    latency = hw.read_device_file("agx-xavier-gpu").latency
    assert [kind.name.lower() for kind in LayerKind] == list(type(latency.macs_per_cycle).model_fields)
    assert [form.name.lower() for form in NumberFormat] == list(type(latency.format_speedup).model_fields)


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_file_of_the_users_own_is_read_by_its_path(tmp_path, as_type):
    path = tmp_path / "mine.yaml"
    with importlib.resources.as_file(FOLDER / "agx-xavier-gpu.yaml") as source:
        shutil.copy(source, path)
    mine, known = hw.load_device(as_type(path)), hw.load_device("agx-xavier-gpu")
    assert jax.tree.all(jax.tree.map(np.array_equal, mine, known))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"^device: expected one of .*agx-xavier-gpu.* got 'tpu-9'\Z"):
        hw.load_device("tpu-9")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2", "expected YAML, got: "),
        (b"[" * 5000, "expected YAML, got: "),
        (b"a: b: c", "expected YAML, got: mapping values are not allowed here at line 1"),
        (b"\xff\xfe\x00", "expected text in UTF-16-LE, got other bytes in line 1"),
        (b"\x00", "expected text in UTF-8, got bytes of zero"),
        (b"when: 1\nwhen: 2", "expected YAML, got: "),
        (b"? [a, b]\n: 1", "expected YAML, got: "),
        (b"", "expected a mapping of fields, got nothing"),
        (b"- 1\n- 2", "expected a mapping of fields, got [1, 2]"),
        (b"schema_version: 9", "schema_version: expected 1, got 9"),
        (b"name: x", "schema_version: expected a value, got nothing (and "),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path, content, message):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^[^\n]*\Z") as caught:
        hw.load_device(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_file_or_a_folder_is_named_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"none.yaml: expected a readable file, got: No such file"):
        hw.load_device(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="expected a readable file, got: Is a directory"):
        hw.load_device(tmp_path)
