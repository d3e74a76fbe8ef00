import io

import pytest
from rich.console import Console

from hadas_jax.report.console import waiting


def printed(*, terminal, text="Fitting [3] rows"):
    out = io.StringIO()
    with waiting(Console(file=out, force_terminal=terminal, width=80), text):
        before = out.getvalue()
    return before, out.getvalue()


def test_the_word_is_there_before_the_work_is_done():
    before, after = printed(terminal=False)
    assert before == after == "Fitting [3] rows\n"


def test_on_a_terminal_the_word_is_gone_once_the_work_is_done():
    _, after = printed(terminal=True)
    assert "Fitting [3] rows" in after
    assert after.endswith("\x1b[2K")


def test_an_error_passes_through():
    with pytest.raises(ValueError, match="wrong"), waiting(Console(file=io.StringIO()), "Reading"):
        raise ValueError("wrong")
