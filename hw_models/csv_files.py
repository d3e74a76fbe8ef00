"""CSV files as people and spreadsheets write them: one reader, which takes a file for what it is or says what it is.

Separators are commas, semicolons or tabs, whichever the header shows, or what a first line `sep=;` says; the text is
UTF-8, or UTF-16 with its mark; lines end in any usual way. Blanks around names and values, the case of names, a
separator at the end of all lines and lines without values do not matter. A name may have its unit behind it in another
spelling, `Latency (ms)`, or be another unit of the same quantity, `latency_us`, which is converted exactly.

Numbers have a decimal point or, all over the file, a decimal comma. What could be either a decimal mark or a
separator of thousands is refused unless other numbers of the file decide it: no number is guessed. In a file that
commas separate, a point is a decimal one.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from hw_models.files import read_text, show
from hw_models.units import conversion

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_TOLD = re.compile(r'"?sep=([,;\t|])"?[,;\t ]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
_UNITS = {"ms": "ms", "mj": "mJ", "w": "W", "mhz": "MHz"}  # what names of columns end in
_BETWEEN_WORDS = re.compile(r"[\s_\-/()\[\],.:]+")

_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:(?P<mark>[.,])[0-9]*)?|(?P<first>[.,])[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")
_EITHER_MARK = re.compile(r"[-+]?[1-9][0-9]{0,2}(?P<mark>[.,])[0-9]{3}")
_THOUSANDS = re.compile(
    "[-+]?[1-9][0-9]{0,2}(?P<group>[.,' \N{RIGHT SINGLE QUOTATION MARK}\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}])"
    "[0-9]{3}(?:(?P=group)[0-9]{3})*(?:(?P<mark>[.,])[0-9]+)?"
)


def read_table(
    path: str | Path, *, columns: Sequence[str], numbers: Sequence[str], required: Sequence[str]
) -> list[tuple[int, dict[str, str]]]:
    """Reads a CSV file whose first line names its columns.

    Args:
        path: The file.
        columns: Names that the header may have; `_ms`, `_mj`, `_w` and `_mhz` at their end are units.
        numbers: Those whose cells are numbers, or texts that hold no digit.
        required: Those that the header must have.

    Returns:
        The lines that hold anything: their number in the file, and text by column, stripped; of numbers, with a decimal
        point and in the unit of the column. Empty cells are empty texts.

    Raises:
        ValueError: One line: file, line, and what was expected and what came.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise ValueError(f"{path}: expected a readable CSV file, got: {error.strerror or 'an error'}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    try:
        return _table(text, columns, numbers, required)
    except ValueError as error:
        raise ValueError(f"{path}{', ' if str(error).startswith('line ') else ': '}{error}") from None


def _table(
    text: str, columns: Sequence[str], numbers: Sequence[str], required: Sequence[str]
) -> list[tuple[int, dict[str, str]]]:
    told = _TOLD.match(text)
    text = text[told.end() :] if told else text
    separator = told[1] if told else _likely_separator(text, columns)
    lines = list(_lines(text, separator, first=2 if told else 1))
    if not lines:
        raise ValueError(f"expected a CSV file with the columns {', '.join(required)}, got an empty file")
    header = _header(lines[0][1], columns, required)
    rows = [(line, _of_columns(line, values, header)) for line, values in lines[1:]]
    names = [name for name, _ in header if name in numbers]
    mark = _decimal_mark([(line, values[name]) for line, values in rows for name in names], separator)
    for name, factor in header:
        for line, values in rows if name in numbers else ():
            values[name] = _number(values[name], mark, factor, where=f"line {line}: {name}")
    return rows


def _likely_separator(text: str, columns: Sequence[str]) -> str:
    """The separator under which the most names of the header are known."""

    def recognised(separator: str) -> int:
        try:
            _, names = next(_lines(text, separator))
        except (StopIteration, ValueError):
            return 0
        return sum(_known_as(name, columns) is not None for name in names)

    return max(_SEPARATORS, key=recognised)


def _lines(text: str, separator: str, *, first: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Lines that hold anything, with their number, as stripped cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield reader.line_num + first - 1, stripped
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num + first - 1}: expected a line of a CSV file, got: {error}") from None


def _words(name: str) -> list[str]:
    return [word for word in _BETWEEN_WORDS.split(name.casefold()) if word]


def _known_as(name: str, columns: Sequence[str]) -> tuple[str, Decimal] | None:
    """The column that a name of a header stands for, and one of its unit in that of the column."""
    words = _words(name)
    for column in columns:
        *stem, unit = _words(column)
        if words == [*stem, unit]:
            return column, Decimal(1)
        if words and words[:-1] == stem and unit in _UNITS:
            factor = conversion(words[-1], _UNITS[unit])
            if factor is not None:
                return column, factor
    return None


def _header(names: Sequence[str], columns: Sequence[str], required: Sequence[str]) -> list[tuple[str, Decimal]]:
    """Columns that the names of a header stand for, as `_known_as`; nameless ones are empty texts."""
    recognised = [_known_as(name, columns) if name else ("", Decimal(1)) for name in names]
    named = [column[0] for column in recognised if column]
    given = ", ".join(filter(None, names))
    missing = next((column for column in required if column not in named), None)
    if missing:
        raise ValueError(f"expected the column {missing}, got {given}{_unit_asked_for(names, columns)}")
    unknown = next((name for name, column in zip(names, recognised, strict=True) if column is None), None)
    if unknown is not None:
        hint = _unit_asked_for([unknown], columns)
        raise ValueError(f"expected columns among {', '.join(columns)}, got {show(unknown)}{hint}")
    twice = next((column for column in columns if named.count(column) > 1), None)
    if twice:
        raise ValueError(f"expected the column {twice} once, got it again: {given}")
    return [column for column in recognised if column]


def _unit_asked_for(names: Sequence[str], columns: Sequence[str]) -> str:
    """Asks for the unit of a name that is a column's without it."""
    given = [_words(name) for name in names]
    lacking = [column for column in columns if _words(column)[-1] in _UNITS and _words(column)[:-1] in given]
    return f": name the unit too, as in {lacking[0]}" if lacking else ""


def _of_columns(line: int, values: list[str], header: Sequence[tuple[str, Decimal]]) -> dict[str, str]:
    """Cells of a line by column; a line wider than the header, be it by empty cells, may lack one of its names."""
    if len(values) != len(header):
        raise ValueError(
            f"line {line}: expected as many values as columns, {len(header)}, got {len(values)}: quote "
            "what holds the separator, write decimals with a point where commas separate, and end all lines alike"
        )
    cells = list(zip((name for name, _ in header), values, strict=True))
    if any(value and not name for name, value in cells):
        raise ValueError(f"line {line}: expected values in columns that have a name, got one in another")
    return {name: value for name, value in cells if name}


def _decimal_mark(cells: Sequence[tuple[int, str]], separator: str) -> str:
    """The decimal mark of a file: the one that its numbers, line and text of each, leave possible."""
    certain: dict[str, tuple[int, str]] = {}
    either: dict[str, tuple[int, str]] = {}
    for line, text in cells:
        if number := _EITHER_MARK.fullmatch(text):
            either.setdefault(number["mark"], (line, text))
        elif mark := _mark_of(text):
            certain.setdefault(mark, (line, text))
    if len(certain) > 1:
        lines = " and ".join(f"{text!r} in line {line}" for line, text in (certain["."], certain[","]))
        raise ValueError(f"expected one decimal mark in the whole file, got {lines}: write decimals with a point")
    if certain:
        return next(iter(certain))
    if either and not (set(either) == {"."} and separator == ","):
        line, text = either.get(",") or either["."]
        raise ValueError(
            f"line {line}: expected a decimal mark that is certain, got {text!r} in a file separated by "
            f"{_SEPARATORS[separator]}, whose mark may be of decimals or of thousands: write 1.2340 or 1234"
        )
    return "."


def _mark_of(text: str) -> str | None:
    """The decimal mark that a number shows, or leaves over where the other one separates its thousands."""
    if number := _NUMBER.fullmatch(text):
        return number["mark"] or number["first"]
    if (number := _THOUSANDS.fullmatch(text)) and number["group"] != number["mark"]:
        return number["mark"] or {".": ",", ",": "."}.get(number["group"])
    return None


def _number(text: str, mark: str, factor: Decimal, *, where: str) -> str:
    """A number with a decimal point and no separators of thousands, in the unit of its column."""
    if not any(character.isdigit() for character in text):
        return text
    either, grouped = _EITHER_MARK.fullmatch(text), _THOUSANDS.fullmatch(text)
    if either and either["mark"] != mark:
        raise ValueError(f"{where}: expected a number without separators of thousands, got {text!r}")
    if _NUMBER.fullmatch(text):
        plain = text.replace(mark, ".")
    elif grouped and grouped["group"] != grouped["mark"]:
        plain = text.replace(grouped["group"], "").replace(mark, ".")
    else:
        raise ValueError(f"{where}: expected a number, got {text!r}")
    return plain if factor == 1 else str(Decimal(plain) * factor)
