import numpy as np
import pytest

from hadas_jax.deploy.architecture import SupernetReference, write_architecture
from hadas_jax.deploy.materialise import data_of, network_at
from hadas_jax.deploy.operating_points import ExitCosts
from hadas_jax.deploy.robustness import CLEAN, under_corruptions
from hadas_jax.deploy.static_network import evaluate, outcomes_at_exits, predict
from hadas_jax.evaluation.corruptions import CORRUPTIONS


@pytest.fixture(scope="module")
def measured(network, data):
    return under_corruptions(network, data)


def test_images_as_they_are_give_the_clean_figures_exactly(measured, network, data):
    outcomes = outcomes_at_exits(*predict(network.segments, network.weights, data), np.asarray(data.labels))
    clean = evaluate(network.architecture, outcomes, costs=ExitCosts.of(network.architecture))
    first = measured[0]
    assert (first.corruption, first.strength) == (CLEAN, 0)
    deployed = (clean.deployable.accuracy, clean.deployable.latency_s, clean.deployable.energy_j)
    assert (first.accuracy, first.latency_s, first.energy_j) == deployed
    assert first.p99_s == clean.percentiles.p99_s
    assert first.stopped == pytest.approx(sum(clean.shares[:-1]))


def test_measured_costs_take_the_place_of_the_cost_models(measured, network):
    exits = len(network.architecture.exits) + 1
    twice = 2 * ExitCosts.of(network.architecture).latency_s[:, 0]
    ones = [1.0] * exits
    found = measured[1].at_measured(twice.tolist(), ones)
    assert found.energy_j == pytest.approx(1)
    assert found.latency_s == pytest.approx(np.dot(measured[1].shares, twice))
    assert found.p99_s in twice
    assert (found.accuracy, found.shares) == (measured[1].accuracy, measured[1].shares)


def test_every_corruption_has_its_three_strengths(measured):
    assert [(each.corruption, each.strength) for each in measured[1:]] == [
        (name, strength) for name in CORRUPTIONS for strength in (1, 2, 3)
    ]
    assert len({each.latency_s for each in measured}) > 1


def test_a_trained_network_gains_nothing_from_corruptions_beyond_noise(finished, architecture, tmp_path):
    supernet = SupernetReference.to(finished / architecture.supernet.path, folder=tmp_path)
    write_architecture(tmp_path / "architecture.json", architecture.model_copy(update={"supernet": supernet}))
    trained = network_at(tmp_path)
    test = data_of(trained.architecture).test
    clean, *others = under_corruptions(trained, test)
    margin = 3 * np.sqrt(0.25 / test.count)
    assert max(each.accuracy for each in others) <= clean.accuracy + margin
    assert max(each.latency_s for each in others) <= ExitCosts.of(architecture).latency_s.max()
