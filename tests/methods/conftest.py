import pytest
from tiny_search import SETTINGS, listed


@pytest.fixture(scope="session", autouse=True)
def listed_space():
    with listed():
        yield


@pytest.fixture(scope="session")
def settings():
    return SETTINGS


@pytest.fixture(scope="session")
def finished(finished_search):
    """A whole small run: its work directory, which nothing is written into, and its result."""
    return finished_search
