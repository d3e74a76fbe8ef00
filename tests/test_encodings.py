"""Text files are UTF-8 whatever the locale, and what the locale cannot print is no traceback."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
SOURCES = sorted(path for name in ("hadas_jax", "hw_models", "experiments") for path in (TOP / name).rglob("*.py"))
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ALWAYS_TEXT = {"read_text", "write_text", "loadtxt", "genfromtxt", "savetxt", "fromregex"}


def opens_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text; what is a method's name alone is taken for that of a path."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if isinstance(call.func, ast.Attribute) and name in ALWAYS_TEXT:
        return True
    if name in ("run", "Popen", "check_output") and ("text" in given or "universal_newlines" in given):
        return True
    if name != "open" or (
        isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") in ("Image", "archive", "os")
    ):
        return False
    modes = [given.get("mode"), *call.args[:2]]
    words = [node.value for node in modes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return not any("b" in word and set(word) <= set("rwxab+") for word in words)


def test_every_text_file_is_opened_with_an_encoding():
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and opens_text(node):
                names = {keyword.arg for keyword in node.keywords}
                found += [] if "encoding" in names else [f"{path.relative_to(TOP)}:{node.lineno}"]
    assert found == []


@pytest.fixture
def run_folder(tmp_path):
    """A run in a folder whose name and data set no locale but a UTF-8 one has."""
    place = tmp_path / "läuft [x] 'ё'"
    place.mkdir()
    config = {"form": "hadas_jax.train/1", "settings": {"dataset": "npz:/daten/größe.npz"}}
    (place / "config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    (place / "metrics.jsonl").write_text('{"stage": "supernet", "step": 1, "loss": 0.5}\n', encoding="utf-8")
    return place


def in_plain_locale(*words, cwd):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= PLAIN | {"PYTHONPATH": str(TOP)}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, check=False)


@pytest.mark.slow
def test_a_report_is_written_in_utf8_in_a_locale_without_it(run_folder, tmp_path):
    done = in_plain_locale("-m", "hadas_jax", "report", run_folder.name, "-o", "ü.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.isascii()
    page = (tmp_path / "ü.html").read_text(encoding="utf-8")
    assert "läuft [x] &#39;ё&#39;" in page or "läuft [x] 'ё'" in page


def test_a_table_is_printed_in_a_locale_that_lacks_its_characters(run_folder, tmp_path):
    code = "from hadas_jax.cli import main; main(['runs', '.']); main(['select', 'gr\\u00f6\\u00dfe'])"
    done = in_plain_locale("-c", code, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.isascii()
    assert b"supernet 1" in done.stdout
    assert re.match(rb"hadas: error: gr\?+e: expected", done.stderr)


def test_text_of_the_library_is_utf8_in_any_locale(tmp_path):
    imports = "from pathlib import Path; from hadas_jax.runs.workdir import write_text"
    code = imports + "; write_text(Path('a'), '\\u00b7\\u0451')"
    done = in_plain_locale("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "a").read_bytes() == "·ё".encode()
