import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hw_models
from hadas_jax.deploy.operating_points import ExitCosts, operating_table, staircase
from hadas_jax.spaces import segments, workload

columns = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def costs(architecture):
    return ExitCosts.of(architecture)


@pytest.fixture(scope="module", params=["mean", "p99", "longest"])
def table(request, architecture, costs):
    return operating_table(architecture, deadline_of=request.param, costs=costs)


@given(columns, st.integers(0, 10))
def test_a_staircase_answers_every_bound_as_the_whole_list_does(rows, most):
    cost, value = np.array(rows, np.float64).T
    steps = staircase(cost, value)
    assert (np.diff(cost[steps]) > 0).all()
    assert (np.diff(value[steps]) < 0).all()
    within = [step for step in steps if cost[step] <= most]
    every = value[cost <= most]
    assert len(within) == 0 if not len(every) else value[within[-1]] == every.min()


def test_costs_are_those_of_the_layers_that_a_sample_runs(architecture, costs):
    device, space = architecture.device.load(), architecture.space
    layers = workload(space, architecture.decoded)
    owner, E = segments(space), space.num_exits
    own = np.flatnonzero(architecture.exit_mask)
    points = hw_models.operating_points(device)
    rows = np.array([0, len(points.core_hz) // 2, len(points.core_hz) - 1])
    some = jax.tree.map(lambda leaf: leaf[rows], points)
    network_costs = jax.jit(jax.vmap(hw_models.network_cost, in_axes=(None, None, 0)))
    for k, end in enumerate([*own, E]):
        runs = (owner <= end) | np.isin(owner, E + 1 + own[own <= end])
        ran = dataclasses.replace(layers, active=layers.active * jnp.asarray(runs, jnp.float32))
        found = network_costs(ran, device, some)
        np.testing.assert_allclose(costs.latency_s[k, rows], found.latency_s, rtol=1e-5)
        np.testing.assert_allclose(costs.energy_j[k, rows], found.energy_j, rtol=1e-5)


def test_mean_costs_at_the_networks_clocks_are_those_of_the_search(architecture, costs):
    for split in (architecture.selection, architecture.test):
        latency, energy = costs.expected(split.shares)
        point = costs.point(tuple(architecture.clocks_mhz.model_dump().values()))
        assert latency[point] == pytest.approx(split.deployable.latency_s, rel=1e-5)
        assert energy[point] == pytest.approx(split.deployable.energy_j, rel=1e-5)
        assert (np.diff(costs.latency_s[:, point]) > 0).all()


def test_no_operating_point_of_the_device_beats_the_table(architecture, costs, table):
    latency, energy = costs.expected(architecture.selection.shares)
    reached = np.cumsum(architecture.selection.shares) >= 0.99 - 1e-6
    p99 = costs.latency_s[np.flatnonzero(reached)[0]]
    time = {"mean": latency, "p99": p99, "longest": costs.latency_s[-1]}[table.deadline_of]
    power = energy / latency
    assert table.evaluated == len(latency)
    for most in np.quantile(time, [0, 0.1, 0.5, 0.9, 1]):
        found = table.by_deadline(most)
        assert table.time(found) <= most
        assert found.energy_j == pytest.approx(energy[time <= most].min())
    for most in np.quantile(power, [0, 0.1, 0.5, 0.9, 1]):
        found = table.by_power(most)
        assert found.power_w <= most
        assert found.latency_s == pytest.approx(latency[power <= most].min())
    assert table.by_deadline(0.9 * time.min()) is None
    assert table.by_power(0.9 * power.min()) is None


def test_clocks_that_the_device_lacks_are_named(costs):
    with pytest.raises(ValueError, match="expected an operating point of the network's device, got 1 2 3 MHz"):
        costs.point((1, 2, 3))


def test_an_unknown_deadline_is_named(architecture):
    with pytest.raises(ValueError, match="deadline_of: expected one of mean, p99, longest, got 'luck'"):
        operating_table(architecture, deadline_of="luck")


def test_the_file_holds_both_staircases_and_the_answers(architecture, table, tmp_path):
    fast = table.deadlines[0]
    asked = (0.5 * table.time(fast), table.time(fast))
    table.write(tmp_path / "points.json", architecture, deadlines_s=asked, power_caps_w=(1e3,))
    found = json.loads((tmp_path / "points.json").read_text())
    assert found["form"] == "hadas_jax.operating_points/1"
    assert found["device"] == "tx2-gpu"
    assert found["network"]["exits"] == list(architecture.exits)
    assert len(found["deadlines"]) == len(table.deadlines)
    assert found["power_caps"][-1]["clocks_mhz"] == table.power_caps[-1].clocks_mhz
    assert found["asked"]["deadlines"][0] == {"deadline_s": asked[0], "point": None}
    assert found["asked"]["deadlines"][1]["point"] == found["deadlines"][0]
    assert found["asked"]["power_caps"][0]["point"] == found["power_caps"][-1]
