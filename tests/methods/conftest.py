import dataclasses

import pytest
from tiny_hadas import TINY

from hadas_jax.commands import search
from hadas_jax.methods import Settings
from hadas_jax.spaces import catalogue

SETTINGS = Settings(
    space="tiny",
    population=4,
    generations=2,
    elite_ratio=0.5,
    epochs=2,
    exit_epochs=2,
    front_size=6,
    group=2,
    batch=128,
)


@pytest.fixture(scope="session", autouse=True)
def listed_space():
    catalogue._SPACES["tiny"] = TINY
    yield
    del catalogue._SPACES["tiny"]


@pytest.fixture(scope="session")
def settings():
    return SETTINGS


@pytest.fixture(scope="session")
def finished(tmp_path_factory, listed_space):
    """A whole small run: its work directory and its result."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    return workdir, search(dataclasses.replace(SETTINGS), workdir=workdir)
