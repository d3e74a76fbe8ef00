"""Scripts of experiments/ as modules."""

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@contextmanager
def script_module(name):
    """Runs experiments/NAME.py as a module, known by its name while it is used."""
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
