"""Spaces of the user's own, read from files."""

import dataclasses
import json

import pytest
import yaml

from hadas_jax.spaces import MBConvSpace, load_space
from hadas_jax.spaces.catalogue import SPACES

CONTENT = {
    "name": "mine",
    "stem_width": [8, 16],
    "stem_stride": 2,
    "stages": [
        {"width": [8, 16], "depth": [1, 2], "kernel": [3], "expand": [1]},
        {"width": [16, 24], "depth": [1, 2, 3], "kernel": [3, 5], "expand": [2, 3], "stride": 2, "se": True},
    ],
    "last_width": [48],
    "first_exit": 1,
    "exit_width": 16,
}


def write(path, content) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def as_content(space: MBConvSpace) -> dict:
    """What a file of a space holds, but for what data sets settle."""
    content = json.loads(json.dumps(dataclasses.asdict(space)))
    return {name: value for name, value in content.items() if name not in ("in_channels", "classes", "number_formats")}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_every_space_of_the_package_comes_back_from_a_file(name, suffix, tmp_path):
    path = tmp_path / f"space.{suffix}"
    path.write_text(json.dumps(as_content(load_space(name))))
    assert load_space(str(path)) == load_space(name)


def test_a_file_is_found_wherever_a_space_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.yaml", CONTENT)
    read = load_space("mine.yaml")
    assert read == load_space(tmp_path / "mine.yaml")
    assert read.name == "mine"
    assert read.num_exits == 4
    assert read.adapt(in_channels=1, classes=3, image_size=9).count == 2**2 * 2 * 3 * 2**3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name: expected text that is not empty"),
        ({"stem_stride": 3}, "stem_stride: expected 1 or 2, got 3"),
        ({"last_width": []}, "last_width: expected at least 1 value"),
        ({"stem_width": [16, 8]}, r"stem_width: expected strictly ascending numbers, got \[16, 8\]"),
        ({"exit_width": 0}, "exit_width: expected a number of at least 1, got 0"),
        ({"stages": []}, "stages: expected at least 1 value"),
        ({"stages": [{"width": [8]}]}, "stages.0.depth: expected a value, got nothing"),
        ({"stages": [CONTENT["stages"][0] | {"kernel": [3, 4]}]}, r"stages.0.kernel: expected odd sizes, got \[3, 4\]"),
        ({"stages": [CONTENT["stages"][0] | {"widht": 8}]}, r"stages.0.widht: .*\(known here: width, depth, kernel"),
        ({"first_exit": 2}, "expected first_exit below 2, the number of blocks of the smallest backbone, got 2"),
        ({"schema_version": 2}, "schema_version: expected 1, got 2"),
        ({"classes": 10}, r"classes: expected no field of this name \(known here: schema_version, name, resolution"),
    ],
)
def test_what_does_not_fit_is_named(change, message, tmp_path):
    path = write(tmp_path / "mine.yaml", CONTENT | change)
    with pytest.raises(ValueError, match=f"mine.yaml: {message}") as refused:
        load_space(path)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"none.yaml: expected a readable file, got: No such file"):
        load_space(str(tmp_path / "none.yaml"))
