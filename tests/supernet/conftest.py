"""The plain network as a module."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def plain():
    """plain_network.py, loaded from its file."""
    spec = importlib.util.spec_from_file_location("plain_network", Path(__file__).with_name("plain_network.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
