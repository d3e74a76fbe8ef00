"""Examples in docstrings run as they are written."""

import doctest
import importlib
from pathlib import Path

import pytest
from documents import TOP

EXAMPLES = sorted(
    path.relative_to(TOP)
    for package in ("hadas_jax", "hw_models")
    for path in (TOP / package).rglob("*.py")
    if any(">>> " in line and "+SKIP" not in line for line in path.read_text().splitlines())
)


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_examples_give_what_they_say(path: Path):
    module = importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
