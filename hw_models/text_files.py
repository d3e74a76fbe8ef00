"""Text files of users: UTF-8, or another encoding that their first bytes name, whatever the locale."""

import codecs
from pathlib import Path

_MARKS = {  # the longer marks first: that of UTF-32 begins as that of UTF-16 does
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def read_text(path: str | Path) -> str:
    """Reads a text file, line ends as they are.

    Args:
        path: The file.

    Returns:
        The text without the mark of its encoding.

    Raises:
        ValueError: One line that says what it is instead of text in UTF-8, or in UTF-16 or UTF-32 with their mark.
        OSError: The file cannot be read.
    """
    return decoded(Path(path).read_bytes())


def decoded(content: bytes) -> str:
    """Decodes the bytes of a text file, as `read_text`.

    Raises:
        ValueError: As `read_text`.
    """
    mark, encoding = next((pair for pair in _MARKS.items() if content.startswith(pair[0])), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: len(mark) + error.start].count(b"\n") + 1
        raise ValueError(
            f"expected text in {encoding.upper()}, got other bytes in line {line}: save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError("expected text in UTF-8, got bytes of zero, as in UTF-16 without its mark: save it as UTF-8")
    return text
