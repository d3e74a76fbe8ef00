"""Tests of text files: UTF-8 or what their first bytes name, whatever the locale."""

import ast
import codecs
from pathlib import Path

import pytest

import hw_models as hw
from hadas_jax import profiling
from hadas_jax.commands import devices as device_commands
from hw_models.files import read_text

SOURCES = [
    *Path(hw.__file__).parent.rglob("*.py"),
    *Path(profiling.__file__).parent.rglob("*.py"),
    Path(device_commands.__file__),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_decoded_as_its_first_bytes_say(encoding, tmp_path):
    (tmp_path / "a.txt").write_bytes("µs\r\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "µs\r\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\xb5s\n", "expected text in UTF-8, got other bytes in line 2: save the file as UTF-8"),
        ("a".encode("utf-16-le"), "expected text in UTF-8, got bytes of zero"),
        (codecs.BOM_UTF16_BE + b"\x00", "expected text in UTF-16-BE, got other bytes in line 1"),
    ],
)
def test_what_is_no_text_gives_one_line(content, message, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path / "a.txt")


def test_no_text_file_is_opened_in_the_encoding_of_the_locale():
    calls = [
        (path.name, node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    opened = [(name, node) for name, node in calls if node.func.attr in ("open", "read_text", "write_text")]
    binary = [
        node for _, node in opened if any(isinstance(mode, ast.Constant) and "b" in mode.value for mode in node.args)
    ]
    assert len(opened) > 5
    for name, node in opened:
        assert node in binary or "encoding" in {keyword.arg for keyword in node.keywords}, f"{name}:{node.lineno}"
