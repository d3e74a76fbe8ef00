"""Tests of reading and writing YAML: numbers as YAML 1.2 takes them, and one line for what is wrong."""

import math

import pytest

from hw_models.files import dump_yaml, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E3", 1000.0),
        ("+12e03", 12000.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("1.5e-3", 0.0015),
        ("1_000", 1000),
        ("010", 10),
        ("0x10", 16),
        ("0o17", 15),
        ("-.inf", -math.inf),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("'1e-5'", "1e-5"),
        ("~", None),
        ("true", True),
        ("", None),
        ('{"a": [1, 2e3, null]}', {"a": [1, 2000.0, None]}),
        ("\ufeffa: 1", {"a": 1}),
        ("x: &a {b: 1}\ny: {<<: *a, b: 2}", {"x": {"b": 1}, "y": {"b": 2}}),
    ],
)
def test_a_number_is_what_yaml_1_2_takes_it_for(text, value):
    read = load_yaml(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\n'a': 3", "the key 'a' a second time at line 3, column 1"),
        ("a: {b: 1, b: 1}", "the key 'b' a second time at line 1, column 11"),
        ("1: a\n1.0: b", "the key 1.0 a second time at line 2, column 1"),
        ("a: [1\nb: 2", "expected ',' or ']', but got ':' at line 2, column 2"),
        ("a: 1\n\tb: 2", "found character '\\t' that cannot start any token at line 2, column 1"),
        ("a: \x00", "unacceptable character #x0000"),
        ("a\n---\nb", "but found another document at line 2, column 1"),
        ("? [1, 2]\n: 3", "found unhashable key at line 1, column 3"),
        ("!!python/name:os.system", "could not determine a constructor for the tag"),
        ("!!binary aa", "could not determine a constructor for the tag"),
        ("!!map [1]", "expected a mapping node, but found sequence at line 1, column 1"),
        ("!!float ''", "string index out of range"),
        ("!!bool x", "'x'"),
        ("9" * 5000, "Exceeds the limit"),
        ("[" * 3000, "maximum recursion depth exceeded"),
    ],
)
def test_what_is_no_yaml_gives_one_line(text, message):
    with pytest.raises(ValueError, match=r"^expected YAML, got: ") as caught:
        load_yaml(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_written_is_read_back():
    content = {"a": "1e-5", "b": "010", "c": 1e-5, "d": 1e22, "e": "1:30", "f": "yes", "g": 100.0, "h": [5, None, "é"]}
    assert load_yaml(dump_yaml(content)) == content


def test_characters_beyond_16_bits_are_read_as_json_writes_them():
    found = load_yaml('{"\\ud83d\\ude00": "a\\ud834\\udd1e", "b": "\U0001d11e"}')
    assert found == {"\U0001f600": "a\U0001d11e", "b": "\U0001d11e"}
    with pytest.raises(ValueError, match="expected YAML, got"):
        load_yaml('"\\ud83d"')
