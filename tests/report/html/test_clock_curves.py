import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.deploy.operating_points import exit_costs
from hadas_jax.evaluation import segment_costs
from hadas_jax.report.html.content import MOST_LINES, clock_curves, clock_grid_mhz
from hw_models import load_device, operating_points, with_clocks


@pytest.fixture(scope="module")
def device():
    whole = load_device("tx2-gpu")
    return with_clocks(whole, core_hz=whole.core_hz[::4].tolist(), host_hz=whole.host_hz[::6].tolist())


@pytest.fixture(scope="module")
def priced(small_space, device):
    """A genome with an exit, who stops there, and what the search would report, by a plain sum over samples."""
    genome = small_space.largest_genome
    backbone = small_space.decode(jnp.asarray(genome))
    costs = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), segment_costs(small_space, backbone, device))
    block, stopped = 2, 0.25
    at = block - small_space.first_exit
    last = small_space.num_exits

    def deployed(cost):
        early = cost[: at + 1].sum(axis=0) + cost[last + 1 + at]
        return stopped * early + (1 - stopped) * (cost[: last + 1].sum(axis=0) + cost[last + 1 + at])

    point = 7
    clocks = {
        name: float(getattr(operating_points(device), f"{name}_hz")[point]) / 1e6 for name in ("core", "memory", "host")
    }
    latency, energy = 1e3 * deployed(costs.latency_s), 1e3 * deployed(costs.energy_j)
    row = {
        "genome": [int(gene) for gene in genome],
        "exits": [block],
        "shares": [stopped, 1 - stopped],
        "clocks": clocks,
        "metrics": {"deployable": {"latency": latency[point], "energy": energy[point]}},
    }
    return row, latency, energy


def test_curves_go_through_what_the_search_reported(small_space, device, priced):
    row, latency, energy = priced
    (curve,) = clock_curves(small_space, device, [row])
    grid = clock_grid_mhz(device)
    shape = tuple(map(len, grid.values()))
    core, memory, host = curve["at"]
    assert (grid["core"][core], grid["memory"][memory], grid["host"][host]) == pytest.approx(
        tuple(row["clocks"].values())
    )
    line = curve["memory"].index(memory)
    np.testing.assert_allclose(curve["energy"][line], energy.reshape(shape)[:, memory, host], rtol=1e-3)
    np.testing.assert_allclose(curve["latency"][line], latency.reshape(shape)[:, memory, host], rtol=1e-3)
    assert len(curve["memory"]) == min(MOST_LINES, shape[1])


def test_a_device_that_has_changed_is_noticed(small_space, device, priced):
    row, *_ = priced
    other = row | {
        "metrics": {
            "deployable": row["metrics"]["deployable"] | {"energy": 1.01 * row["metrics"]["deployable"]["energy"]}
        }
    }
    with pytest.raises(ValueError, match="tx2-gpu: expected a device model that gives the energy of the search"):
        clock_curves(small_space, device, [other])


def test_without_exits_every_sample_runs_the_trunk_and_no_head(small_space, device):
    genome = small_space.largest_genome
    costs = segment_costs(small_space, small_space.decode(jnp.asarray(genome)), device)
    trunk = np.asarray(costs.latency_s, np.float64)[: small_space.num_exits + 1].sum(axis=0)
    found = exit_costs(small_space, device)(genome, [])
    np.testing.assert_allclose(found.latency_s, trunk[None], rtol=1e-6)
