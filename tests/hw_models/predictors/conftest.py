import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces.darts import DARTS_CODES, EDGE_NODE
from hadas_jax.spaces.darts_costs import throughput_table
from hadas_jax.spaces.darts_network import DartsNetwork
from hw_models.accelerator import load_fpga
from hw_models.predictors import KINDS, PredictorNotes, ThroughputPredictor, fit_predictor, recipe_of
from hw_models.predictors.predictor import init_weights


def draw_codes(count: int, seed: int = 0) -> np.ndarray:
    """Random networks, two edges to each node, int8[count, 28]; drawn by numpy alone."""
    rng, codes = np.random.default_rng(seed), np.zeros((count, 28), np.int8)
    for code in codes:
        for start in (0, 14):
            for node in range(4):
                edges = start + rng.choice(np.flatnonzero(node == EDGE_NODE), 2, replace=False)
                code[edges] = rng.integers(1, 8, 2)
    return codes


def draw_predictor(kind: str, members: int, seed: int = 0) -> ThroughputPredictor:
    """A predictor of random weights; entries of a lookup are positive."""
    keys = jax.random.split(jax.random.key(seed), members)
    weights = jax.vmap(lambda key: init_weights(key, kind, DARTS_CODES, hidden=(8, 6)))(keys)
    if kind == "lookup":
        table = 0.1 * jax.random.uniform(keys[0], weights.table.shape)
        weights = weights.replace(table=table)
    return ThroughputPredictor(weights, jnp.float32(6.6), jnp.float32(0.2), kind, DARTS_CODES)


@pytest.fixture(scope="session")
def codes() -> np.ndarray:
    """3,000 random networks."""
    return draw_codes(3000)


@pytest.fixture(scope="session")
def throughputs(codes) -> np.ndarray:
    """What the published generic table says of them, images/s."""
    return np.asarray(throughput_table("generic", DartsNetwork(), fpga=load_fpga("ku115"))(jnp.asarray(codes)))


@pytest.fixture(scope="session")
def drawn():
    """The function above: kind, members, seed -> predictor."""
    return draw_predictor


@pytest.fixture(scope="session")
def small_recipes():
    """Quick recipes by kind."""
    quick = {"epochs": 3, "batch": 100}
    sizes = {"mlp": {"hidden": (16,)}, "embedding": {"hidden": (16,), "learning_rate": 1e-3}, "lookup": {}}
    return {kind: dataclasses.replace(recipe_of(kind), **quick, **sizes[kind]) for kind in KINDS}


@pytest.fixture(scope="session")
def fitted(codes, throughputs, small_recipes):
    """Ensembles of two of every kind, by kind."""
    notes = PredictorNotes("generic", "ku115", DartsNetwork().sizes, source="a test")
    key = jax.random.key(1)
    return {
        kind: fit_predictor(
            key, codes, throughputs, layout=DARTS_CODES, kind=kind, members=2, recipe=recipe, notes=notes
        )
        for kind, recipe in small_recipes.items()
    }


@pytest.fixture(scope="session")
def equal_edges():
    """Edges by place: those whose order the hardware does not see."""
    return [np.flatnonzero(place == np.array(DARTS_CODES.groups)) for place in range(3)]
