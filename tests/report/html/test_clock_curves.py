import jax
import numpy as np
import pytest

from hadas_jax.deploy.operating_points import ExitCosts
from hadas_jax.evaluation import segment_costs
from hadas_jax.report.html.content import MOST_LINES, clock_curves
from hw_models import load_device, operating_points, with_clocks


@pytest.fixture(scope="module")
def device():
    whole = load_device("tx2-gpu")
    return with_clocks(whole, core_hz=whole.core_hz[::4].tolist(), host_hz=whole.host_hz[::6].tolist())


@pytest.fixture(scope="module")
def costs(tiny_space, device):
    """The costs of the segments of the largest backbone."""
    found = jax.jit(segment_costs, static_argnums=0)(tiny_space, tiny_space.largest(), device)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)


@pytest.fixture(scope="module")
def priced(tiny_space, device, costs):
    """A genome with an exit, who stops there, and what the search would report, by a plain sum over samples."""
    genome = tiny_space.largest_genome
    block, stopped = 2, 0.25
    at = block - tiny_space.first_exit
    last = tiny_space.num_exits

    def deployed(cost):
        early = cost[: at + 1].sum(axis=0) + cost[last + 1 + at]
        return stopped * early + (1 - stopped) * (cost[: last + 1].sum(axis=0) + cost[last + 1 + at])

    point = 7
    points = operating_points(device)
    clocks = {name: float(getattr(points, f"{name}_hz")[point]) / 1e6 for name in ("core", "memory", "host")}
    latency, energy = 1e3 * deployed(costs.latency_s), 1e3 * deployed(costs.energy_j)
    row = {
        "genome": [int(gene) for gene in genome],
        "exits": [block],
        "shares": [stopped, 1 - stopped],
        "clocks": clocks,
        "metrics": {"deployable": {"latency": latency[point], "energy": energy[point]}},
    }
    return row, latency, energy


def test_curves_go_through_what_the_search_reported(tiny_space, device, priced):
    row, latency, energy = priced
    grid, (curve,) = clock_curves(tiny_space, device, [row])
    shape = tuple(map(len, grid.values()))
    core, memory, host = curve["at"]
    assert (grid["core"][core], grid["memory"][memory], grid["host"][host]) == pytest.approx(
        tuple(row["clocks"].values())
    )
    line = curve["memory"].index(memory)
    np.testing.assert_allclose(curve["energy"][line], energy.reshape(shape)[:, memory, host], rtol=1e-3)
    np.testing.assert_allclose(curve["latency"][line], latency.reshape(shape)[:, memory, host], rtol=1e-3)
    assert len(curve["memory"]) == min(MOST_LINES, shape[1])


def test_a_device_that_has_changed_is_noticed(tiny_space, device, priced):
    row, *_ = priced
    other = row | {
        "metrics": {
            "deployable": row["metrics"]["deployable"] | {"energy": 1.01 * row["metrics"]["deployable"]["energy"]}
        }
    }
    with pytest.raises(ValueError, match="tx2-gpu: expected a device model that gives the energy of the search"):
        clock_curves(tiny_space, device, [other])


def test_without_exits_every_sample_runs_the_trunk_and_no_head(tiny_space, device, costs):
    trunk = costs.latency_s[: tiny_space.num_exits + 1].sum(axis=0)
    (found,) = ExitCosts.of_networks([(tiny_space.largest_genome, [])], space=tiny_space, device=device)
    np.testing.assert_allclose(found.latency_s, trunk[None], rtol=1e-6)
