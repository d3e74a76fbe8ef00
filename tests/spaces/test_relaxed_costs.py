"""Tests of relaxed costs: exact at the corners, and exact means everywhere between them."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw
from hadas_jax.spaces.costs import block_costs, population_cost, relaxed_cost

INDICES = jnp.array([1, 0, 20])
AT_ONCE = 64


@pytest.fixture(scope="module")
def device():
    device = hw.load_device("agx-xavier-gpu")
    return hw.with_clocks(device, core_hz=[114.75e6, 828.75e6, 1377e6], memory_hz=[204e6, 2133e6])


@pytest.fixture(scope="module")
def space(small_space):
    """Two stages, at two resolutions."""
    return dataclasses.replace(small_space, name="two sizes", resolution=(9, 17))


@pytest.fixture(scope="module")
def table(space, device):
    return jax.jit(block_costs, static_argnums=0)(space, device)


@pytest.fixture(scope="module")
def every(space, table, device):
    """All genomes, int32[P, G], and their costs at INDICES."""
    genomes = np.array(list(itertools.product(*map(range, space.codec.cardinalities))), np.int32)
    points = np.broadcast_to(INDICES, (len(genomes), 3))
    run = jax.jit(lambda genomes: population_cost(space, table, device, genomes=genomes, indices=points))
    return genomes, run(genomes)


@pytest.fixture(scope="module")
def relaxed(space, table, device):
    """Costs of relaxed genomes [P, G, C] at INDICES, for P of at most AT_ONCE."""

    @jax.jit
    @jax.vmap
    def run(probabilities):
        return relaxed_cost(space, table, device, probabilities=probabilities, indices=INDICES)

    def costs(probabilities):
        padded = np.resize(np.asarray(probabilities, np.float32), (AT_ONCE, *probabilities.shape[1:]))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(probabilities)], run(padded))

    return costs


def draw(space, seed):
    sizes = space.codec.cardinalities
    raw = np.random.default_rng(seed).gamma(1.0, size=(len(sizes), max(sizes))) * (
        np.arange(max(sizes)) < sizes[:, None]
    )
    return raw / raw.sum(-1, keepdims=True)


def close(found, expected, rtol=1e-5):
    np.testing.assert_allclose(found.latency_s, expected.latency_s, rtol=rtol)
    np.testing.assert_allclose(found.energy_j, expected.energy_j, rtol=rtol)


def test_one_hot_probabilities_cost_what_the_backbone_costs(space, every, relaxed):
    genomes, costs = every
    rows = np.append(np.random.default_rng(0).choice(len(genomes), AT_ONCE - 2, replace=False), [0, len(genomes) - 1])
    one_hot = np.eye(max(space.codec.cardinalities))[genomes[rows]]
    close(relaxed(one_hot), jax.tree.map(lambda leaf: leaf[rows], costs))


def test_relaxed_costs_are_means_over_all_genomes(space, every, relaxed):
    genomes, costs = every
    probabilities = draw(space, 1)
    share = np.prod([probabilities[g, genomes[:, g]] for g in range(genomes.shape[1])], axis=0)
    expected = jax.tree.map(lambda leaf: share @ np.asarray(leaf, np.float64), costs)
    close(jax.tree.map(lambda leaf: leaf[0], relaxed(probabilities[None])), expected)


def test_padding_has_no_influence(space, relaxed):
    probabilities, sizes = draw(space, 3), space.codec.cardinalities
    noisy = np.where(np.arange(max(sizes)) < sizes[:, None], probabilities, 7.0)
    costs = relaxed(np.stack([probabilities, noisy]))
    assert costs.latency_s[0] == costs.latency_s[1]
    assert costs.energy_j[0] == costs.energy_j[1]


def test_gradients_are_costs_of_one_choice_more(space, table, device, relaxed):
    # The expectation is linear in each gene: its slope along a choice is the cost with that choice made.
    probabilities = draw(space, 4).astype(np.float32)

    def energy(probabilities):
        return relaxed_cost(space, table, device, probabilities=probabilities, indices=INDICES).energy_j

    gradient = np.asarray(jax.jit(jax.grad(energy))(probabilities))
    assert np.isfinite(gradient).all()
    for gene, size in enumerate(space.codec.cardinalities):
        made = np.repeat(probabilities[None], size, axis=0)
        made[:, gene] = np.eye(size, probabilities.shape[1])
        costs = np.asarray(relaxed(made).energy_j, np.float64)
        np.testing.assert_allclose(
            gradient[gene, :size] - gradient[gene, 0], costs - costs[0], rtol=1e-3, atol=1e-5 * costs[0]
        )
        np.testing.assert_array_equal(gradient[gene, size:], 0.0)


@pytest.mark.parametrize("shape", [(3, 3), (10, 2), (10,)])
def test_probabilities_of_another_shape_are_refused(space, table, device, shape):
    with pytest.raises(AssertionError, match="probabilities"):
        relaxed_cost(space, table, device, probabilities=jnp.ones(shape), indices=INDICES)
