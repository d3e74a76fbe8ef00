import pytest
from tiny_search import SETTINGS


@pytest.fixture(scope="session")
def settings():
    return SETTINGS


@pytest.fixture(scope="session")
def finished(finished_search):
    """A whole small run: its work directory, which nothing is written into, and its result."""
    return finished_search
