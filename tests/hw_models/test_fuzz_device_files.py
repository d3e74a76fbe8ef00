"""Device files in drawn states of damage: the device has the numbers of the file, or one line says what is wrong."""

import copy
import functools
import importlib.resources
import math

import hypothesis
import numpy as np
import pytest
from fuzzing import DRAWS
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from hw_models.catalogue import device_names, read_device_file, to_device
from hw_models.files import checked, dump_yaml, load_yaml
from hw_models.schema import DeviceFile

fuzz = hypothesis.settings(
    max_examples=DRAWS, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.sampled_from([1e300, 1e-300, 10**400, -1, 0, "", "12", "1e3", "nan", "W", "mW", "measured"]),
    st.text(max_size=8),
)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=4), scalars, max_size=3)


@functools.cache
def shipped(name: str) -> object:
    """A device of the package without its long texts."""

    def short(part):
        if isinstance(part, dict):
            return {key: "x" if key in ("source", "description") else short(value) for key, value in part.items()}
        return [short(value) for value in part] if isinstance(part, list) else part

    file = importlib.resources.files("hw_models") / "devices" / f"{name}.yaml"
    return short(load_yaml(file.read_text(encoding="utf-8")))


def places(part, path=()):
    """Paths of all parts within a content."""
    keys = part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(part[key], (*path, key))


def numbers(part, path=()) -> dict:
    """Numbers of a content by path."""
    if isinstance(part, dict | list):
        pairs = part.items() if isinstance(part, dict) else enumerate(part)
        return {where: number for key, value in pairs for where, number in numbers(value, (*path, key)).items()}
    if path[-1] in ("unit", "name", "source", "description", "metric", "held_out", "measured_on") or part is None:
        return {}
    try:
        return {path: float(part)}
    except ValueError:
        return {}


def change(content, draw) -> None:
    """Changes one place of a content."""
    *where, last = draw(st.sampled_from(list(places(content))))
    parent = functools.reduce(lambda part, key: part[key], where, content)
    old = parent[last]
    action = draw(st.sampled_from(["drop", "rename", "replace", "scale", "wrap", "move"]))
    if action == "drop":
        del parent[last]
    elif action == "rename" and isinstance(parent, dict):
        name = draw(st.text(max_size=6) | st.sampled_from(list(parent)) | st.integers())
        parent[name] = parent.pop(last)
    elif action == "scale" and isinstance(old, int | float):
        parent[last] = old * draw(st.sampled_from([1e3, 1e6, 1e9, 1e-3, 1e-6, -1.0, 0.0, math.nan, math.inf]))
    elif action == "wrap":
        parent[last] = draw(st.sampled_from([[old], {"value": old}, [old, old]]))
    elif action == "move":
        *other, end = draw(st.sampled_from(list(places(content))))
        parent[last] = copy.deepcopy(functools.reduce(lambda part, key: part[key], other, content)[end])
    else:
        parent[last] = draw(values)


def one_line(error: ValueError) -> None:
    assert str(error)
    assert len(str(error).splitlines()) == 1


def parse(content) -> DeviceFile:
    return checked(content, DeviceFile, version=1)


def has_the_numbers_of(file: DeviceFile, content) -> None:
    assert numbers(file.model_dump(exclude_none=True)) == pytest.approx(numbers(content), rel=1e-12, abs=0)
    device = to_device(file)
    for clock in ("core", "memory", "host"):
        mhz = np.array([float(value) for value in content["clocks"][clock]["value"]])
        np.testing.assert_allclose(np.asarray(getattr(device, f"{clock}_hz")), 1e6 * mhz, rtol=1e-6)


@pytest.mark.slow
@fuzz
@given(st.sampled_from(device_names()), st.integers(1, 3), st.data())
def test_a_changed_device_file_is_what_it_says_or_refused_in_one_line(name, changes, data):
    content = copy.deepcopy(shipped(name))
    for _ in range(changes):
        change(content, data.draw)
    try:
        file = parse(content)
    except ValueError as error:
        one_line(error)
    else:
        has_the_numbers_of(file, content)


@pytest.mark.slow
@fuzz
@given(st.sampled_from(device_names()), st.sampled_from([1e3, 1e6, 1e-3]), st.data())
def test_clocks_in_another_unit_are_refused_with_that_unit(name, factor, data):
    content = copy.deepcopy(shipped(name))
    clocks = [content["clocks"][clock] for clock in content["clocks"]]
    caps = [cap for mode in content.get("modes", {}).values() for cap in mode.values()]
    figure = data.draw(st.sampled_from([*clocks, *caps]))
    scaled = np.multiply(figure["value"], factor).tolist()
    figure["value"] = scaled
    unit = {1e3: "kHz", 1e6: "Hz", 1e-3: "GHz"}[factor]
    with pytest.raises(ValueError, match=rf"value.*: expected a clock in MHz, .* MHz if it was in {unit}") as caught:
        parse(content)
    one_line(caught.value)


@pytest.mark.slow
@fuzz
@given(st.sampled_from(["nano-gpu", "coral-edge-tpu"]), st.data())
def test_a_device_file_with_damaged_bytes_is_what_it_says_or_refused_in_one_line(tmp_path, name, data):
    text = bytearray(_text(name))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        drawn = data.draw(
            st.binary(max_size=3)
            | st.sampled_from([b": ", b"- ", b"\n", b"\t", b"'", b"&a ", b"*a", b"{", b"e-5", b"0", b"."])
        )
        text[start : start + data.draw(st.integers(0, 3))] = drawn
    path = tmp_path / "device.yaml"
    path.write_bytes(bytes(text))
    try:
        file = read_device_file(path)
    except ValueError as error:
        one_line(error)
    else:
        has_the_numbers_of(file, load_yaml(bytes(text).decode("utf-8-sig")))


@functools.cache
def _text(name: str) -> bytes:
    return dump_yaml(shipped(name)).encode()
