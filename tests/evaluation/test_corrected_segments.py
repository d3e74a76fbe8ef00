"""Segments of backbones on devices that correct whole networks: order, sums, and what lacks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzzing import DRAWS

import hw_models
from hadas_jax.evaluation import segment_costs
from hadas_jax.spaces import load_space, segments, workload

SPACES = {"attentivenas": (3, 1000, 224), "small-images": (3, 10, 32), "digits": (1, 10, 8)}


def space_of(name):
    channels, classes, size = SPACES[name]
    return load_space(name).adapt(in_channels=channels, classes=classes, image_size=size)


def drawn(space, count):
    genomes = np.random.default_rng(0).integers(0, space.codec.cardinalities, (count, len(space.codec.names)))
    return jnp.asarray(genomes, jnp.int32)


def least_of_each(space, genomes, device):
    """Least cost of a segment over all clocks, [N, 2], of latency and energy."""

    def least(genome):
        costs = segment_costs(space, space.decode(genome), device)
        return jnp.stack([jnp.min(costs.latency_s), jnp.min(costs.energy_j)])

    return np.asarray(jax.jit(lambda rows: jax.lax.map(least, rows, batch_size=8))(genomes))


@pytest.mark.parametrize(
    ("device", "name", "count"),
    [
        ("agx-xavier-gpu", "attentivenas", 200),
        ("agx-xavier-gpu", "small-images", 200),
        *(
            pytest.param(device, name, 5 * DRAWS, marks=pytest.mark.slow)  # 10,000 before a release
            for device in ("agx-xavier-gpu", "tx2-gpu", "nano-gpu")
            for name in SPACES
        ),
    ],
)
def test_no_prefix_of_a_backbone_costs_more_than_a_longer_one_at_any_clocks(device, name, count):
    space = space_of(name)
    found = least_of_each(space, drawn(space, count), hw_models.load_device(device))
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_the_segments_of_the_trunk_are_the_network_and_those_that_lack_are_free():
    space, device = space_of("attentivenas"), hw_models.load_device("tx2-gpu")
    device = hw_models.with_clocks(device, core_hz=[114.75e6, 1300.5e6], memory_hz=[1866e6], host_hz=[2035.2e6])
    points, exits = hw_models.operating_points(device), space.num_exits
    in_trunk = jnp.asarray(segments(space) <= exits, jnp.float32)

    @jax.jit
    def priced(genome):
        backbone = space.decode(genome)
        layers = workload(space, backbone)
        trunk = layers.replace(active=layers.active * in_trunk)
        whole = jax.vmap(partial(hw_models.network_cost, trunk, device))(points)
        return (
            segment_costs(space, backbone, device),
            whole,
            jax.ops.segment_sum(layers.active, segments(space), 2 * exits + 1),
        )

    for genome in drawn(space, 5):
        found, whole, rows = priced(genome)
        for column, expected in ((found.latency_s, whole.latency_s), (found.energy_j, whole.energy_j)):
            np.testing.assert_allclose(column[: exits + 1].sum(0), expected, rtol=1e-5)
            assert not np.asarray(column)[np.asarray(rows) == 0].any()
