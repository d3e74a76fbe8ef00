"""Paths as users write them: with `~`, spaces, brackets and quotes."""

import io
import shlex

import numpy as np
import pytest
from failing_commands import fails
from rich.console import Console
from rich.table import Table

from hadas_jax.cli import main
from hadas_jax.data import load_dataset
from hadas_jax.report.console import new_console
from hadas_jax.report.devices import print_device
from hadas_jax.settings import SearchSettings, expand_home
from hw_models import read_device_file

ODD = "it's  [bold]a [x] :dog: größe"


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("before", ["", "npz:", "folder:", "--checkpoint=", "--dataset=npz:"])
def test_the_home_folder_is_put_in_where_a_path_begins(before, at_home):
    assert expand_home(f"{before}~/x y") == f"{before}{at_home}/x y"


@pytest.mark.parametrize("text", ["", "digits", "a~b", "npz:a/~/b", "tfds:~x", "--checkpoint", "~nobody-here/x", "7~"])
def test_other_words_stay_as_they_are(text):
    assert expand_home(text) == text


def test_data_sets_below_the_home_folder_are_found(at_home):
    images = np.arange(40 * 16, dtype=np.uint8).reshape(40, 4, 4)
    np.savez(at_home / "data.npz", images=images, labels=np.arange(40) % 2)
    assert load_dataset("npz:~/data.npz", seed=0).classes == 2
    with pytest.raises(ValueError, match=str(at_home)):
        load_dataset("folder:~/none", seed=0)


def test_paths_in_settings_files_may_begin_with_a_tilde(at_home):
    values = {"dataset": "npz:~/a.npz", "checkpoint": "~/b", "device": "~/c.yaml"}
    found = SearchSettings.from_mapping(values, source="x")
    assert (found.data.dataset, found.supernet.checkpoint) == (f"npz:{at_home}/a.npz", f"{at_home}/b")
    assert found.device == f"{at_home}/c.yaml"


def test_flags_with_a_tilde_are_read_from_the_home_folder(at_home, capsys):
    (at_home / "mine.yaml").write_text("epochs: none\n", encoding="utf-8")
    for flag in ("--config=~/mine.yaml", "--config ~/mine.yaml"):
        error = fails(f"search {flag}", capsys)
        assert f"--config {at_home}/mine.yaml: --epochs: expected a whole number" in error


def test_odd_paths_are_printed_as_they_are_and_commands_quoted(at_home, capsys):
    (at_home / ODD).mkdir()
    error = fails(["select", ODD], capsys)
    assert f"{ODD}: expected the work directory of a search" in error
    (at_home / ODD / "config.json").write_text('{"form": "hadas_jax.search/1", "settings": {}}', encoding="utf-8")
    error = fails(["select", ODD], capsys)
    assert shlex.join(["hadas", "search", "--resume", "--workdir", ODD]) in error
    main(["runs", "."])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("it's", "[bold]a", "[x]", ":dog:"))


def test_a_console_of_the_commands_prints_tables_and_titles_without_markup(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    table = Table(title=ODD)
    table.add_column(ODD, no_wrap=True)
    table.add_row(ODD)
    new_console().print(table)
    assert stream.getvalue().count(ODD) == 3


def test_a_device_is_described_word_for_word():
    console = Console(file=io.StringIO(), width=300, markup=False)
    file = read_device_file("agx-xavier-gpu")
    print_device(file.model_copy(update={"name": "[x]", "description": ODD}), console)
    printed = console.file.getvalue()
    assert printed.startswith(f"[x]: {ODD}")
    assert "[1] " in printed
    assert "\\" not in printed
