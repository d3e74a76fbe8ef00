import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces.darts import DARTS_CODES, EDGE_NODE
from hadas_jax.spaces.darts_costs import throughput_table
from hadas_jax.spaces.darts_network import DartsNetwork
from hw_models.accelerator import load_fpga
from hw_models.predictors import KINDS, PredictorNotes, ThroughputPredictor, fit_predictor, recipe_of
from hw_models.predictors.predictor import Layer, Weights, init_weights


def draw_codes(count: int, seed: int = 0) -> np.ndarray:
    """Random networks, two edges to each node, int8[count, 28]; drawn by numpy alone."""
    rng, codes = np.random.default_rng(seed), np.zeros((count, 28), np.int8)
    for code in codes:
        for start in (0, 14):
            for node in range(4):
                edges = start + rng.choice(np.flatnonzero(node == EDGE_NODE), 2, replace=False)
                code[edges] = rng.integers(1, 8, 2)
    return codes


@functools.cache
def draw_predictor(kind: str, members: int, seed: int = 0) -> ThroughputPredictor:
    """A predictor of random weights drawn by numpy, sized as in a fit; entries of a lookup are positive."""
    rng = np.random.default_rng(seed)
    sizes = jax.eval_shape(lambda: init_weights(jax.random.key(0), kind, DARTS_CODES, hidden=(8, 6)))
    if kind == "lookup":
        table = rng.uniform(0, 0.1, (members, *sizes.table.shape))
        base = Layer(np.zeros((members, 0, 1), np.float32), np.ones((members, 1), np.float32))
        weights = Weights(np.float32(table), (base,))
    else:
        weights = jax.tree.map(lambda leaf: np.float32(rng.normal(0, 0.4, (members, *leaf.shape))), sizes)
    weights = jax.tree.map(jnp.asarray, weights)
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
    """Quick recipes by kind; of those that learn soon, enough epochs to learn."""
    settings = {
        "mlp": {"hidden": (64, 64), "epochs": 30, "batch": 64},
        "embedding": {"hidden": (16,), "epochs": 3, "batch": 100, "learning_rate": 1e-3},
        "lookup": {"epochs": 60, "batch": 100},
    }
    return {kind: dataclasses.replace(recipe_of(kind), **settings[kind]) for kind in KINDS}


@pytest.fixture(scope="session")
def fitted(codes, throughputs, small_recipes):
    """Ensembles of two of every kind, by kind; what was told of each epoch is asserted on the way."""
    notes = PredictorNotes("generic", "ku115", DartsNetwork().sizes, source="a test")
    found = {}
    for kind, recipe in small_recipes.items():
        told: list[tuple[int, int, float]] = []
        settings = {"kind": kind, "members": 2, "recipe": recipe, "notes": notes}
        found[kind] = fit_predictor(
            jax.random.key(1),
            codes,
            throughputs,
            layout=DARTS_CODES,
            on_epoch=lambda *progress, told=told: told.append(progress),
            **settings,
        )
        assert told == [(done, recipe.epochs, loss) for done, loss in enumerate(found[kind].losses, start=1)]
    return found


@pytest.fixture(scope="session")
def equal_edges():
    """Edges by place: those whose order the hardware does not see."""
    return [np.flatnonzero(place == np.array(DARTS_CODES.groups)) for place in range(3)]
