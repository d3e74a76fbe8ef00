"""What a file is that is not what was expected, in words for people: by its first bytes, never by its name."""

import html
import re
import zipfile
from pathlib import Path

_READ, _SHOWN = 4096, 40
_SIGNATURES = {
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ\x00": "an xz archive: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it first",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes",
    b"\x93NUMPY": "a NumPy file of one array",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
}


def what_it_is(path: Path | str) -> str | None:
    """Says what a file is where its content gives it away.

    Args:
      path: of a file that exists.

    Returns:
      Words with size and first characters, and what to do; None for a zip archive that is whole and for binary data
      without a known signature.

    Raises:
      OSError: it cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_READ)
    if not start:
        return "an empty file"
    known = next((words for signature, words in _SIGNATURES.items() if start.startswith(signature)), None)
    if known is not None:
        return f"{known} ({size:,} bytes)"
    if start.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        return f"a zip archive that is cut off after {size:,} bytes: copy or download it again"
    if start[257:262] == b"ustar":
        return f"a tar archive ({size:,} bytes): unpack it first"
    if len(start) > 8 and start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") <= size - 8:
        return f"a safetensors file ({size:,} bytes): write its tensors to an npz file, numpy.savez(FILE, **tensors)"
    text = _text(start)
    return None if text is None else _named_text(text, size)


def _text(start: bytes) -> str | None:
    """Returns the beginning as text, None where it is none."""
    for encoding in ("utf-16", "utf-8-sig") if start[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        try:
            text = start.decode(encoding)
        except UnicodeDecodeError as error:
            if error.start < len(start) - 4:  # else a character that the reading cut
                continue
            text = start[: error.start].decode(encoding, errors="ignore")
        if all(character.isprintable() or character.isspace() for character in text):
            return text
    return None


def _named_text(text: str, size: int) -> str:
    words = " ".join(text.split())
    beginning = f"beginning with {words[:_SHOWN]!r}"
    if words.startswith("version https://git-lfs"):
        return (
            f"a Git LFS pointer, a text file of {size:,} bytes {beginning}: git lfs pull fetches the file it stands for"
        )
    if re.match(r"<(!doctype html|html|head|body|\?xml)", words, re.IGNORECASE):
        title = re.search(r"<title[^>]*>(.*?)</title>", words, re.IGNORECASE)
        named = f", titled {html.unescape(title[1]).strip()!r}," if title else ""
        return f"a web page of {size:,} bytes{named} {beginning}: download the file itself, as a browser would"
    return f"a text file of {size:,} bytes {beginning}"
