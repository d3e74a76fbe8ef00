"""Tests of costs by table: the same as layer by layer, for every part of a backbone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw
from hadas_jax.spaces import DIGITS, segments, workload
from hadas_jax.spaces.costs import block_costs, population_cost

SPACE = dataclasses.replace(DIGITS, resolution=(8, 13))


@pytest.fixture(scope="module")
def device():
    device = hw.load_device("agx-xavier-gpu")
    return hw.with_clocks(device, core_hz=[114.75e6, 828.75e6, 1377e6], memory_hz=[204e6, 2133e6])


@pytest.fixture(scope="module")
def case(device):
    """The table of a space of two resolutions, genomes, its ends among them, settings, and costs layer by layer."""
    draws = np.random.default_rng(0)
    genomes = draws.integers(0, SPACE.codec.cardinalities, (40, len(SPACE.codec.names))).astype(np.int32)
    genomes[0], genomes[1] = SPACE.largest_genome, SPACE.smallest_genome
    indices = draws.integers(0, [3, 2, 29], (40, 3)).astype(np.int32)
    in_trunk = jnp.asarray(segments(SPACE) <= SPACE.num_exits, jnp.float32)

    @jax.jit
    @jax.vmap
    def by_layer(genome, index):
        layers = workload(SPACE, SPACE.decode(genome))
        layers = dataclasses.replace(layers, active=layers.active * in_trunk)
        return hw.network_cost(layers, device, hw.operating_point(device, index))

    table = jax.jit(block_costs, static_argnums=0)(SPACE, device)
    return table, jnp.asarray(genomes), jnp.asarray(indices), by_layer(genomes, indices)


def test_a_backbone_costs_the_same_as_its_layers(case, device):
    table, genomes, indices, expected = case
    found = jax.jit(lambda g, i: population_cost(SPACE, table, device, genomes=g, indices=i))(genomes, indices)
    np.testing.assert_allclose(found.latency_s, expected.latency_s, rtol=1e-5)
    np.testing.assert_allclose(found.energy_j, expected.energy_j, rtol=1e-5)


def test_one_backbone_alone_costs_what_it_costs_among_others(case, device):
    table, genomes, indices, expected = case
    found = population_cost(SPACE, table, device, genomes=genomes[3:4], indices=indices[3:4])
    np.testing.assert_allclose(found.latency_s, expected.latency_s[3], rtol=1e-5)
    np.testing.assert_allclose(found.energy_j, expected.energy_j[3], rtol=1e-5)
