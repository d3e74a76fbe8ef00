import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.evaluation import segment_costs, subset_stats
from hadas_jax.methods import Run
from hadas_jax.methods.hadas import Hadas, Problem, static_cost
from hadas_jax.search import hypervolume, whole_product_front
from hadas_jax.spaces import available_exits
from hadas_jax.supernet import initialise
from hw_models import default_point, network_cost


@pytest.fixture(scope="module")
def run(settings, listed_space):
    return Run(settings)


@pytest.fixture(scope="module")
def problem(run):
    params = initialise(run.space, jax.random.key(0))
    return Problem(params, run.splits.validation, run._calibration_batches(), run.device)


@pytest.fixture(scope="module")
def engines(run):
    samples = len(run.splits.validation.labels)
    return Hadas(run.space, population=4, generations=2, elites=2, samples=samples, group=2)


@pytest.fixture(scope="module")
def states(engines, problem):
    """The states after the first and the second generation."""
    step = jax.jit(engines.generation)
    first, _ = step(engines.init(jax.random.key(1)), jax.random.key(2), problem)
    second, metrics = step(first, jax.random.key(3), problem)
    return first, second, metrics


def test_the_first_generation_holds_the_largest_and_the_smallest_backbone(states, engines):
    archive = states[0].archive
    np.testing.assert_array_equal(archive.genomes[0], engines.space.largest_genome)
    np.testing.assert_array_equal(archive.genomes[1], engines.space.smallest_genome)


def test_the_archive_keeps_every_generation(states):
    first, second, metrics = states
    assert int(first.archive.size) == 4
    assert int(second.archive.size) == int(metrics["evaluated"]) == 8
    np.testing.assert_array_equal(second.archive.genomes[:4], first.archive.genomes[:4])
    assert np.isfinite(second.archive.static).all()
    assert not np.isfinite(first.archive.static[4:]).any()


def test_elites_are_examined_and_go_first_in_mating(states):
    first = states[0]
    assert 1 <= int(first.archive.examined.sum()) <= 2
    assert np.isfinite(first.outer.merit[:2]).all()
    assert np.isnan(first.outer.merit[2:]).all()


def test_later_generations_never_lose_hypervolume(states, engines, problem):
    first, second, _ = states
    assert (second.table <= first.table).all()


def test_a_merit_is_a_lower_bound_of_the_exact_hypervolume(states, engines, problem):
    archive = states[1].archive
    row = jnp.int32(0)
    _, merit = jax.jit(engines.inner)(archive, row, problem)
    backbone = engines.space.decode(archive.genomes[0])
    correct = archive.correct[0]
    stats = subset_stats(correct[:-1], correct, available_exits(engines.space, backbone), samples=engines.samples)
    costs = segment_costs(engines.space, backbone, problem.device)
    front = whole_product_front(stats.error, stats.weights, latency=costs.latency_s, energy=costs.energy_j)
    reference = engines._reference(problem.device)
    scaled = jnp.where(front.valid[:, None], front.objectives / reference[None], 2.0)
    exact = float(hypervolume(scaled, jnp.ones(3)))
    assert exact * 0.93 <= float(merit) <= exact * (1 + 1e-5)


def test_the_static_cost_is_the_trunks_without_heads(engines, problem):
    from hadas_jax.spaces import segments, workload

    space = engines.space
    genome = jnp.asarray(space.largest_genome)
    table = workload(space, space.decode(genome))
    trunk = dataclasses.replace(
        table, active=table.active * jnp.asarray(segments(space) <= space.num_exits, jnp.float32)
    )
    whole = network_cost(trunk, problem.device, default_point(problem.device))
    found = static_cost(space, genome, problem.device)
    np.testing.assert_allclose(found.latency_s, whole.latency_s, rtol=1e-5)
    np.testing.assert_allclose(found.energy_j, whole.energy_j, rtol=1e-5)
