"""The plain loops of darts_loop.py, FPGAs and random codes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces.darts_costs import darts_counts
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hw_models.accelerator import Fpga, Rows, load_fpga


@pytest.fixture(scope="session")
def loop() -> ModuleType:
    """darts_loop.py, loaded from its file."""
    spec = importlib.util.spec_from_file_location("darts_loop", Path(__file__).with_name("darts_loop.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def network() -> DartsNetwork:
    """The network that E2E-Perf measures."""
    return DartsNetwork()


@pytest.fixture(scope="session")
def rows(network) -> Rows:
    """Of the networks of that size."""
    return network_rows(network)


@pytest.fixture(scope="session")
def ku115() -> Fpga:
    return load_fpga("ku115")


@pytest.fixture(scope="session")
def codes(loop) -> np.ndarray:
    """40 random networks."""
    return loop.draw(40, 0)


@pytest.fixture(scope="session")
def darts_v2() -> jax.Array:
    """Its counts."""
    return darts_counts(jnp.asarray([int(digit) for digit in "4444034003060011013103001300"], jnp.int32))
