import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from static_networks import at_median_scores, static_network

from hadas_jax.data import LabelledImages
from hadas_jax.deploy.select import SearchedSupernet, architecture_of, candidates
from hadas_jax.methods.hadas.results import read_search
from hadas_jax.settings import NO_CONSTRAINTS
from hadas_jax.spaces import Stage
from hw_models.catalogue import chosen_device


@pytest.fixture(scope="session")
def finished(finished_search, tmp_path_factory):
    """A copy of the work directory of a whole small search."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    shutil.copytree(finished_search[0], workdir)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of a finished search, from which nothing is cut out."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of its own for commands, with a cache that they do not make anew and lines of 140 characters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")
    monkeypatch.setenv("COLUMNS", "140")


@pytest.fixture(scope="session")
def found(finished):
    """What this search found."""
    return read_search(finished)


@pytest.fixture(scope="session")
def architecture(found):
    """A design of it with as many exits as any."""
    designs, *_ = candidates(found.result, "deployable")
    design = max(designs, key=lambda design: len(design.exits))
    supernet = SearchedSupernet.of(found)
    parameters = supernet.parameter_counts([design], chosen_device(found.settings.device, found.settings.operating))
    return architecture_of(
        found,
        design,
        supernet=supernet,
        parameters=int(parameters[0]),
        folder=found.path,
        limits=NO_CONSTRAINTS,
        prefer="knee",
    )


@pytest.fixture(scope="session")
def short(small_space, draw):
    """A space of at most three blocks in two stages, as few as have every kind of layer, and drawn weights."""
    stages = (Stage((8, 16), (1,), (3, 5), (2,), stride=2), Stage((16, 24), (1, 2), (3,), (2, 4), stride=2, se=True))
    space = dataclasses.replace(small_space, name="short", stages=stages)
    return space, draw(space, 0)


@pytest.fixture(scope="session")
def data():
    """70 random images of bytes, standardised as the network takes them."""
    rng = np.random.default_rng(4)
    images, labels = rng.integers(0, 256, (70, 9, 9, 1), np.uint8), rng.integers(0, 3, 70)
    by = (jnp.array([0.25], jnp.float32), jnp.array([0.5], jnp.float32))
    return LabelledImages(jnp.asarray(images), jnp.asarray(labels, jnp.int32), *by)


@pytest.fixture(scope="session")
def network(short, data):
    """A network at whose exits samples stop and go on."""
    return at_median_scores(static_network(*short), data)
