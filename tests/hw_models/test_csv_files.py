"""Tests of the one reader of CSV files: what spreadsheets write is read, and what is not certain is refused."""

import codecs

import pytest

from hw_models.csv_files import read_table

COLUMNS = ["network", "layers", "latency_ms", "power_w"]
READ = {"network": "a", "layers": "dense 1;linear 2", "latency_ms": "0.487239", "power_w": "6.02217"}
PLAIN = 'network,layers,latency_ms,power_w\na,"dense 1;linear 2",0.487239,6.02217\n'
SEMICOLONS = 'network;layers;latency_ms;power_w\r\na;"dense 1;linear 2";0,487239;6,02217\r\n'


def read(path, text, **changed):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path, **{"columns": COLUMNS, "numbers": COLUMNS[2:], "required": COLUMNS[:3]} | changed)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.encode("utf-8-sig"),
        codecs.BOM_UTF16_LE + PLAIN.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", ", "),
        PLAIN.replace(",", " , ").replace('" ,', '",'),
        PLAIN.replace("\n", ",\n"),
        PLAIN.replace("\n", ",,,\n"),
        PLAIN + "\n\n,,,\n  \n",
        "\n\n" + PLAIN,
        PLAIN.upper().replace("A,", "a,").replace("DENSE 1;LINEAR", "dense 1;linear"),
        PLAIN.replace("latency_ms", "Latency (ms)").replace("power_w", "Power [W]"),
        PLAIN.replace("latency_ms", "Latency / ms").replace("power_w", " power W "),
        PLAIN.replace("latency_ms", "latency_us").replace("0.487239", "487.239"),
        PLAIN.replace("power_w", "power (mW)").replace("6.02217", '"6,022.17"'),
        SEMICOLONS,
        SEMICOLONS.encode("utf-16"),
        "sep=;\r\n" + SEMICOLONS,
        '"sep=;"\r\n' + SEMICOLONS,
        SEMICOLONS.replace("\r\n", ";\r\n"),
        SEMICOLONS.replace("power_w", "power_mw").replace("6,02217", "6.022,17"),
        SEMICOLONS.replace("power_w", "power_uw").replace("6,02217", "6.022.170"),
        SEMICOLONS.replace("power_w", "power_mw").replace("6,02217", "6\N{NARROW NO-BREAK SPACE}022,17"),
    ],
)
def test_a_table_is_read_whatever_wrote_it(tmp_path, text):
    ((_, row),) = read(tmp_path / "m.csv", text)
    assert {**row, **{name: float(row[name]) for name in COLUMNS[2:]}} == {
        **READ,
        **{name: float(READ[name]) for name in COLUMNS[2:]},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            PLAIN.replace("0.487239", '"0,487239"'),
            "expected one decimal mark in the whole file, got '6.02217' in line 2 and '0,487239' in line 2",
        ),
        (PLAIN.replace("0.487239", "0,487239"), "line 2: expected as many values as columns, 4, got 5: quote what"),
        (PLAIN.replace("6.02217", '"6,022"'), "line 2: power_w: expected a number without separators of thousands"),
        (
            SEMICOLONS.replace("0,487239", "1,234").replace("6,02217", "6,022"),
            "line 2: expected a decimal mark that is certain, got '1,234' in a file separated by semicolons",
        ),
        (
            SEMICOLONS.replace("0,487239", "1.234").replace("6,02217", "6"),
            "line 2: expected a decimal mark that is certain, got '1.234' in a file separated by semicolons",
        ),
        (SEMICOLONS.replace('"', ""), "line 2: expected as many values as columns, 4, got 5"),
        (PLAIN.replace("latency_ms", "latency"), "layers, latency, power_w: name the unit too, as in latency_ms"),
        (PLAIN.replace("power_w", "power"), "got 'power': name the unit too, as in power_w"),
        (PLAIN.replace("power_w", "power (dBm)"), "got 'power (dBm)'"),
        (PLAIN.replace("power_w", "latency_us"), "expected the column latency_ms once, got it again"),
        (PLAIN.replace("power_w", ""), "line 2: expected values in columns that have a name, got one"),
        (
            PLAIN.replace("network", ",network").replace("a,", "0,a,"),
            "line 2: expected values in columns that have a name, got one in another",
        ),
        (PLAIN.replace("6.02217", "6.02217 W"), "line 2: power_w: expected a number, got '6.02217 W'"),
        (PLAIN.replace("6.02217", "6_02"), "line 2: power_w: expected a number, got '6_02'"),
        (PLAIN.replace("6.02217", "١٢"), "line 2: power_w: expected a number, got '١٢'"),
        (PLAIN + "b,dense 1,1.5,\nc,dense 1,1.5,2,\n", "line 4: expected as many values as columns, 4, got 5"),
        # A name of the header that is lost, beside a column that is empty, must not move the values before it.
        (PLAIN.replace("\n", ",\n").replace("_w,", "_w"), "line 2: expected as many values as columns, 4, got 5"),
        (PLAIN.replace("linear 2", 'linear "2'), "line 2: expected a line of a CSV file, got: "),
        (PLAIN.encode("utf-16-le"), "expected text in UTF-8, got bytes of zero, as in UTF-16 without its mark"),
        (PLAIN.replace("a,", "ä,").encode("cp1252"), "expected text in UTF-8, got other bytes in line 2"),
        (PLAIN.encode("utf-16")[:-1], "expected text in UTF-16-LE, got other bytes"),
        ("", "expected a CSV file with the columns network, layers, latency_ms, got an empty file"),
        ('"network,layers"\n', "expected the column network, got network,layers"),
    ],
)
def test_what_is_not_certain_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"m\.csv") as caught:
        read(tmp_path / "m.csv", text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lines_are_numbered_as_an_editor_does(tmp_path):
    table = read(tmp_path / "m.csv", 'sep=,\n\nnetwork,layers,latency_ms\n\n"a",b,1\n\nc,d,2\n')
    assert [line for line, _ in table] == [5, 7]
    assert list(table[0][1]) == ["network", "layers", "latency_ms"]
