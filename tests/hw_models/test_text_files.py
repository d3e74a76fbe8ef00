"""Tests of text files: UTF-8 or what their first bytes name, whatever the locale."""

import codecs

import pytest

from hw_models.files import read_text


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
