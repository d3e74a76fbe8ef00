"""A whole search as one compiled function."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.search import run, sample
from hadas_jax.search.strategies import load_strategy

P, CARDINALITIES, GENERATIONS = 32, (6, 5, 4, 3), 5


def evaluate(genomes):
    a, b, c, d = genomes.T.astype(jnp.float32)
    return jnp.stack([a + b + 2 * d, (5 - a) + 2 * (4 - b) + d, (3 - c) ** 2 + a + c], axis=1)


def constrained(genomes):
    return evaluate(genomes), jnp.maximum(3 - genomes[:, 0], 0).astype(jnp.float32)


@pytest.fixture(scope="module")
def strategy():
    return load_strategy("NSGA2", population_size=P, cardinalities=CARDINALITIES)


def test_the_scan_does_what_ask_and_tell_do(strategy):
    first, params = sample(jax.random.key(0), jnp.array(CARDINALITIES), size=P), strategy.default_params
    state, metrics = run(strategy, evaluate, jax.random.key(5), GENERATIONS, population=first)
    _, init_key, run_key = jax.random.split(jax.random.key(5), 3)
    expected = strategy.init(init_key, first, evaluate(first), params)
    for number, key in enumerate(jax.random.split(run_key, GENERATIONS)):
        ask_key, tell_key = jax.random.split(key)
        genomes, expected = strategy.ask(ask_key, expected, params)
        expected, one = strategy.tell(tell_key, genomes, evaluate(genomes), expected, params)
        jax.tree.map(np.testing.assert_array_equal, one, jax.tree.map(lambda leaf, n=number: leaf[n], metrics))
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_violations_are_heeded(strategy):
    state, _ = run(strategy, constrained, jax.random.key(0), 10)
    assert (np.asarray(state.violation) == 0).all()
    assert (np.asarray(state.population)[:, 0] >= 3).all()


@pytest.mark.parametrize("name", ["NSGA2", "DifferentialEvolution"])
def test_seeds_side_by_side_do_what_each_does_alone(name):
    strategy = load_strategy(name, population_size=P, cardinalities=CARDINALITIES)
    keys = jax.random.split(jax.random.key(3), 2)
    together = jax.vmap(lambda key: run(strategy, evaluate, key, GENERATIONS)[0])(keys)
    alone = [run(strategy, evaluate, key, GENERATIONS)[0] for key in keys]
    np.testing.assert_array_equal(together.population, np.stack([state.population for state in alone]))


def test_too_few_generations_are_an_error(strategy):
    with pytest.raises(ValueError, match=r"^generations: expected at least 0, got -1"):
        run(strategy, evaluate, jax.random.key(0), -1)


_SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from hadas_jax.search import NSGA2, run
def evaluate(genomes):
    a, b = genomes.T.astype(jnp.float32)
    return jnp.stack([a + b, (9 - a) + b], axis=1)
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("population",)), PartitionSpec("population"))
strategy = NSGA2(16, (10, 10))
spread, alone = (run(strategy, evaluate, jax.random.key(0), 5, sharding=each)[0] for each in (sharding, None))
assert len(spread.population.sharding.device_set) == len(jax.devices()) == 4
jax.tree.map(np.testing.assert_array_equal, spread, alone)
"""


@pytest.mark.slow
def test_a_population_split_over_devices_gives_the_same():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", _SHARDED], env=environment, check=True)
