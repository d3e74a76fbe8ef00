import dataclasses

import pytest

from hadas_jax.commands import search
from hadas_jax.methods import Settings
from hadas_jax.spaces import MBConvSpace, Stage, catalogue

TINY = MBConvSpace(
    name="tiny",
    resolution=(),
    stem_width=(8,),
    stem_stride=2,
    stages=(
        Stage(width=(8, 16), depth=(1, 2), kernel=(3,), expand=(1,)),
        Stage(width=(16,), depth=(1, 2), kernel=(3,), expand=(2,), stride=2),
    ),
    last_width=(16,),
    head_expand=1,
    first_exit=1,
    exit_width=8,
)
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
