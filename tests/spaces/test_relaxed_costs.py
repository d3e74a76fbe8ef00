"""Tests of relaxed costs: exact at the corners, and exact means everywhere between them."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw
from hadas_jax.spaces.costs import (
    block_costs,
    population_cost,
    relaxed_cost,
)

INDICES = jnp.array([1, 0, 20])


@pytest.fixture(scope="module")
def device():
    device = hw.load_device("agx-xavier-gpu")
    return hw.with_clocks(device, core_hz=[114.75e6, 828.75e6, 1377e6], memory_hz=[204e6, 2133e6])


def make(space, device):
    """Table of a space, and compiled costs of genomes and of relaxed genomes at INDICES."""
    table = jax.jit(block_costs, static_argnums=0)(space, device)

    @jax.jit
    def by_genome(genomes):
        points = jnp.broadcast_to(INDICES, (genomes.shape[0], 3))
        return population_cost(space, table, device, genomes=genomes, indices=points)

    @jax.jit
    @jax.vmap
    def by_probability(probabilities):
        return relaxed_cost(space, table, device, probabilities=probabilities, indices=INDICES)

    return table, by_genome, by_probability


@pytest.fixture(scope="module")
def tiny(tiny_space, device):
    return make(tiny_space, device)


def draw_relaxed(space, rng):
    sizes = space.codec.cardinalities
    raw = rng.gamma(1.0, size=(len(sizes), max(sizes))) * (np.arange(max(sizes)) < sizes[:, None])
    return raw / raw.sum(-1, keepdims=True)


def close(found, expected, rtol=1e-5):
    np.testing.assert_allclose(found.latency_s, expected.latency_s, rtol=rtol)
    np.testing.assert_allclose(found.energy_j, expected.energy_j, rtol=rtol)


def test_one_hot_probabilities_cost_what_the_backbone_costs(small_space, device):
    space = dataclasses.replace(small_space, name="three sizes", resolution=(9, 12, 17))
    _, by_genome, by_probability = make(space, device)
    sizes = space.codec.cardinalities
    genomes = np.random.default_rng(0).integers(0, sizes, (60, len(sizes))).astype(np.int32)
    genomes[0], genomes[1] = space.largest_genome, space.smallest_genome
    close(by_probability(jax.nn.one_hot(genomes, max(sizes))), by_genome(jnp.asarray(genomes)))


def test_relaxed_costs_are_means_over_all_genomes(tiny_space, tiny):
    _, by_genome, by_probability = tiny
    sizes = tiny_space.codec.cardinalities
    every = np.array(list(itertools.product(*map(range, sizes))), np.int32)
    costs = by_genome(jnp.asarray(every))
    relaxed = draw_relaxed(tiny_space, np.random.default_rng(1))
    share = np.prod([relaxed[g, every[:, g]] for g in range(len(sizes))], axis=0)
    expected = jax.tree.map(lambda leaf: share @ np.asarray(leaf, np.float64), costs)
    found = by_probability(jnp.asarray(relaxed, jnp.float32)[None])
    close(jax.tree.map(lambda leaf: leaf[0], found), expected)


def test_padding_has_no_influence(tiny_space, tiny):
    relaxed = draw_relaxed(tiny_space, np.random.default_rng(3))
    sizes = tiny_space.codec.cardinalities
    noisy = np.where(np.arange(max(sizes)) < sizes[:, None], relaxed, 7.0)
    costs = tiny[2](jnp.asarray(np.stack([relaxed, noisy]), jnp.float32))
    assert costs.latency_s[0] == costs.latency_s[1]
    assert costs.energy_j[0] == costs.energy_j[1]


def test_gradients_are_costs_of_one_choice_more(tiny_space, tiny, device):
    # The expectation is linear in each gene: its slope along a choice is the cost with that choice made.
    relaxed = jnp.asarray(draw_relaxed(tiny_space, np.random.default_rng(4)), jnp.float32)

    def energy(probabilities):
        cost = relaxed_cost(tiny_space, tiny[0], device, probabilities=probabilities, indices=INDICES)
        return cost.energy_j

    gradient = np.asarray(jax.jit(jax.grad(energy))(relaxed))
    assert np.isfinite(gradient).all()
    for gene, size in enumerate(tiny_space.codec.cardinalities):
        made = np.repeat(np.asarray(relaxed)[None], size, axis=0)
        made[:, gene] = np.eye(size, relaxed.shape[1])
        costs = np.asarray(tiny[2](jnp.asarray(made)).energy_j, np.float64)
        np.testing.assert_allclose(
            gradient[gene, :size] - gradient[gene, 0], costs - costs[0], rtol=1e-3, atol=1e-5 * costs[0]
        )
        np.testing.assert_array_equal(gradient[gene, size:], 0.0)


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (5,)])
def test_probabilities_of_another_shape_are_refused(tiny_space, tiny, device, shape):
    with pytest.raises(AssertionError, match="probabilities"):
        relaxed_cost(tiny_space, tiny[0], device, probabilities=jnp.ones(shape), indices=INDICES)
