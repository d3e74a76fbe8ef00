"""Commands that must fail: exit code 2 and one line."""

import pytest

from hadas_jax.cli import main


def refused(command, capsys):
    """Runs a command, a line or its arguments; returns what it printed before, and its line."""
    with pytest.raises(SystemExit) as stop:
        main(command.split() if isinstance(command, str) else command)
    assert stop.value.code == 2
    printed, error = capsys.readouterr()
    assert error.startswith("hadas: error: ")
    assert error.count("\n") == 1
    return printed, error


def fails(command, capsys):
    """Runs a command; returns its line."""
    return refused(command, capsys)[1]
