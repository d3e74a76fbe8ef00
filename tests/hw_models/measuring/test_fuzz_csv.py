"""Tables in drawn dialects, encodings, units and states of damage: the drawn rows come back, or one line says why."""

import codecs
import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from fuzzing import DRAWS
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hw_models.measuring.measurements import Measurement, read_measurements

LAYERS = ("dense 1000 10 20 30 1", "dense 4608 80.5 64 512 1;linear 50 5 5 10 1", "pooling 1e3 0 5 6 0")
UNITS = {
    "latency_ms": {"ms": 1, "us": Decimal("1e-3"), "µs": Decimal("1e-3"), "s": 1000, "ns": Decimal("1e-6")},
    "spread_ms": {"ms": 1, "us": Decimal("1e-3")},
    "power_w": {"W": 1, "mW": Decimal("1e-3"), "uW": Decimal("1e-6")},
    "core_mhz": {"MHz": 1, "kHz": Decimal("1e-3"), "GHz": 1000, "Hz": Decimal("1e-6")},
    "memory_mhz": {"MHz": 1, "kHz": Decimal("1e-3")},
    "runs": {},
}
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
}
REFUSED_AS_UNCERTAIN = ("expected a decimal mark that is certain", "expected a number without separators of thousands")

texts = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]) | st.sampled_from(",;\t\"'|"), max_size=12
).map(str.strip)
fuzz = settings(
    max_examples=DRAWS, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def amounts(lowest: str, highest: str):
    return st.decimals(lowest, highest, places=6).flatmap(
        lambda value: st.integers(0, 6).map(lambda places: max(round(value, places), Decimal(lowest)))
    )


NUMBERS = {
    "latency_ms": amounts("0.001", "9999"),
    "spread_ms": amounts("0.001", "99"),
    "power_w": amounts("0.01", "1500"),
    "core_mhz": amounts("20", "5000"),
    "memory_mhz": amounts("20", "5000"),
    "runs": st.integers(1, 20000).map(Decimal),
}


@st.composite
def tables(draw):
    """Columns in their order, and rows of text and Decimal or None."""
    extra = draw(st.lists(st.sampled_from([name for name in NUMBERS if name != "latency_ms"]), unique=True))
    columns = draw(
        st.permutations(["network", "layers", "latency_ms", *extra, *draw(st.sampled_from([[], ["machine"]]))])
    )
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        row = {"network": draw(texts.filter(bool)), "layers": draw(st.sampled_from(LAYERS))}
        row |= {
            name: draw(NUMBERS[name] | (st.none() if name != "latency_ms" else st.nothing()))
            for name in columns
            if name in NUMBERS
        }
        rows.append({name: row[name] if name in row else draw(texts) or None for name in columns})
    return columns, rows


@st.composite
def dialects(draw):
    separator, mark = draw(st.sampled_from([",", ";", "\t", "|"])), draw(st.sampled_from(".,"))
    # A point in a file that commas separate is a decimal one, whatever else it could be.
    thousands = ["", "", "\N{NARROW NO-BREAK SPACE}", "'", *([] if separator == mark == "," else ["other"])]
    return {
        "separator": separator,
        "mark": mark,
        "thousands": draw(st.sampled_from(thousands)),
        "encoding": draw(st.sampled_from(list(ENCODINGS))),
        "newline": draw(st.sampled_from(["\n", "\r\n", "\r"])),
        "space": draw(st.sampled_from(["", " "])),
        "header": draw(st.sampled_from(["{stem}_{unit}", "{stem} ({unit})", " {stem} [{unit}] ", "{stem} / {unit}"])),
        "case": draw(st.sampled_from([str, str.upper, str.title])),
        "quote_all": draw(st.sampled_from([False, True])),
        "trailing": draw(st.sampled_from(["", separator, 2 * separator])),
        "last": draw(st.sampled_from(["", "\n", "\n\n  \n"])),
        "told": draw(st.sampled_from(["", "sep={}", '"sep={}"'])),
        "units": {name: draw(st.sampled_from(list(units))) for name, units in UNITS.items() if units},
    }


def number(value: Decimal, dialect) -> str:
    """A number as a spreadsheet shows it."""
    whole, _, rest = f"{value:f}".partition(".")
    if dialect["thousands"]:
        other = "," if dialect["mark"] == "." else "."
        whole = f"{int(whole):,}".replace(",", other if dialect["thousands"] == "other" else dialect["thousands"])
    return whole + (dialect["mark"] + rest if rest else "")


def shown(columns, rows, dialect) -> list[list[str]]:
    """Header and cells as texts."""

    def named(column: str) -> str:
        stem, _, _ = column.rpartition("_")
        unit = dialect["units"].get(column)
        name = dialect["header"].format(stem=stem, unit=unit) if unit else column
        return dialect["case"](name)

    cells = [[named(column) for column in columns]]
    for row in rows:
        line = []
        for column in columns:
            value = row[column]
            if isinstance(value, Decimal):
                factor = UNITS[column].get(dialect["units"].get(column), 1)
                value = number(value / factor, dialect)
            line.append(value or "")
        cells.append(line)
    return cells


def joined(cells, dialect) -> str:
    def quoted(text: str) -> str:
        special = set(text) & {dialect["separator"], '"', "\r", "\n"}
        return '"' + text.replace('"', '""') + '"' if special or dialect["quote_all"] else text

    lines = [(dialect["separator"] + dialect["space"]).join(map(quoted, line)) + dialect["trailing"] for line in cells]
    told = [dialect["told"].format(dialect["separator"])] if dialect["told"] else []
    return dialect["newline"].join([*told, *lines, ""]) + dialect["last"].replace("\n", dialect["newline"])


def encoded(text: str, dialect) -> bytes:
    return ENCODINGS[dialect["encoding"]] + text.encode(dialect["encoding"])


def read(content: bytes) -> list[Measurement] | str:
    """The rows, or the one line of refusal."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.csv"
        path.write_bytes(content)
        try:
            return read_measurements(path)
        except ValueError as error:
            message = str(error)
            assert message.startswith(str(path))
            assert len(message.splitlines()) == 1
            return message.removeprefix(str(path))


def drawn(rows) -> list[Measurement]:
    def plain(value):
        return float(value) if isinstance(value, Decimal) else value

    return [Measurement.model_validate({name: plain(value) for name, value in row.items() if value}) for row in rows]


def marked(cells, columns, dialect) -> list[tuple[bool, bool]]:
    """Of each number with a mark: whether its last mark is the decimal one, and whether that could be of thousands."""
    found = []
    for line in cells[1:]:
        for column, text in zip(columns, line, strict=True):
            plain = text.replace("\N{NARROW NO-BREAK SPACE}", "").replace("'", "")
            marks = [character for character in plain if character in ".,"]
            if column in NUMBERS and marks:
                whole, rest = plain.replace(marks[-1], " ").rsplit(" ", 1)
                lone = len(marks) == 1 and text == plain and len(rest) == 3 and len(whole) <= 3 and whole[0] != "0"
                found.append((marks[-1] == dialect["mark"], lone))
    return found


def is_certain(cells, columns, dialect) -> bool:
    """Whether no number is left that could be read in two ways."""
    numbers = marked(cells, columns, dialect)
    if any(lone and not is_decimal for is_decimal, lone in numbers):
        return False
    is_plain = dialect["mark"] == "." and dialect["separator"] == ","
    return is_plain or not numbers or not all(lone for _, lone in numbers)


@pytest.mark.slow
@fuzz
@given(tables(), dialects())
def test_a_table_in_any_dialect_comes_back_exactly_unless_its_marks_are_not_certain(table, dialect):
    columns, rows = table
    cells = shown(columns, rows, dialect)
    found = read(encoded(joined(cells, dialect), dialect))
    if is_certain(cells, columns, dialect):
        assert found == drawn(rows)
    else:
        assert isinstance(found, str)
        assert any(reason in found for reason in REFUSED_AS_UNCERTAIN)


def drop_cell(cells, draw, _):
    line = draw(st.sampled_from(cells))
    line.pop(draw(st.integers(0, len(line) - 1)))


def add_cell(cells, draw, _):
    line = draw(st.sampled_from(cells))
    line.insert(draw(st.integers(0, len(line))), draw(st.sampled_from(["7", "x", "0.5"])))


def split_cell(cells, draw, _):
    """A decimal comma that nobody quoted."""
    line = draw(st.sampled_from(cells))
    i = draw(st.integers(0, len(line) - 1))
    whole, mark, rest = line[i].partition(",")
    assume(mark)
    line[i : i + 1] = [whole, rest]


def swap_mark(cells, draw, numbers):
    """Another decimal mark in one number, where two others show theirs."""
    assume(sum(not lone for _, lone in numbers) > 2)
    line = draw(st.sampled_from(cells[1:]))
    i = draw(st.integers(0, len(line) - 1))
    assume(any(mark in line[i] for mark in ".,") and line[i][0].isdigit())
    line[i] = line[i].translate(str.maketrans(".,", ",."))


def rename(cells, draw, _):
    i = draw(st.integers(0, len(cells[0]) - 1))
    others = cells[0][:i] + cells[0][i + 1 :]
    cells[0][i] = draw(st.sampled_from(["", "latency", "power", "core_thz", "x", *others]))


DAMAGES = (drop_cell, add_cell, split_cell, swap_mark, rename)


@pytest.mark.slow
@fuzz
@given(tables(), dialects(), st.data())
def test_a_damaged_table_comes_back_exactly_or_is_refused_in_one_line(table, dialect, data):
    columns, rows = table
    assume(len(rows) > 1)  # a single line may be a whole one of its own
    cells = shown(columns, rows, dialect)
    data.draw(st.sampled_from(DAMAGES))(cells, data.draw, marked(cells, columns, dialect))
    found = read(encoded(joined(cells, dialect), dialect))
    assert isinstance(found, str) or found == drawn(rows)


@pytest.mark.slow
@fuzz
@given(tables(), dialects(), st.data())
def test_bytes_of_any_kind_give_rows_or_one_line(table, dialect, data):
    columns, rows = table
    content = bytearray(encoded(joined(shown(columns, rows, dialect), dialect), dialect))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read(bytes(content))
