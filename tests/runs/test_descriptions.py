import json
from dataclasses import dataclass

import pytest

from hadas_jax.runs.checkpoints import read_json, validated

FORM = "hadas_jax.thing/1"


@dataclass(frozen=True)
class Thing:
    size: int

    def __post_init__(self):
        if self.size > 9:
            raise ValueError(f"size: expected at most 9, got {self.size}")


def test_an_object_of_its_form_comes_back_whole(tmp_path):
    content = {"form": FORM, "size": 3, "more": [1]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = read_json(tmp_path / "a.json", FORM, what="a thing")
    assert found == content
    assert validated(Thing, found, path=tmp_path / "a.json") == Thing(3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a.json: expected a thing, cannot read it; do so"),
        ("[]", "a.json: expected a thing, cannot read it; do so"),
        ("{}", "a.json: expected a thing, cannot read it; do so"),
        ('{"form": "hadas_jax.thing/2"}', "a.json: expected form hadas_jax.thing/1, got 'hadas_jax.thing/2'; do so"),
        (json.dumps({"form": [1] * 99}), "a.json: expected form hadas_jax.thing/1, got [1, 1"),
    ],
)
def test_what_is_no_such_object_is_said_in_one_line(text, message, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.json") as error:
        read_json(path, FORM, what="a thing", hint="; do so")
    assert message in str(error.value)
    assert str(error.value).count("\n") == 0
    assert len(str(error.value)) < len(str(path)) + 150


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "a.json: size: expected a value, got nothing; do so"),
        ({"size": "x"}, "a.json: size: expected a whole number, got 'x'; do so"),
        ({"size": 12}, "a.json: size: expected at most 9, got 12; do so"),
    ],
)
def test_the_first_field_that_does_not_fit_is_named(content, message, tmp_path):
    with pytest.raises(ValueError, match="expected") as error:
        validated(Thing, content, path=tmp_path / "a.json", hint="; do so")
    assert str(error.value) == f"{tmp_path}/{message}"
