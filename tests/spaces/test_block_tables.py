"""Tables of measured blocks as devices: every block of a space by its name, and what a network of them takes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import hw_models
from hadas_jax.evaluation import segment_costs
from hadas_jax.methods.hadas.constraints import static_costs
from hadas_jax.spaces import load_space
from hadas_jax.spaces.costs import block_costs, population_cost
from hadas_jax.spaces.workload import block_names, require_priced
from hw_models.blocks import BASE, BlockCost, block_layers, block_table, parse_block
from hw_models.catalogue import read_device_file, to_device
from hw_models.device import table_device
from hw_models.lookup import read_block_costs

SIZES = {"digits": (1, 10, 8), "small-images": (3, 100, 32), "attentivenas": (3, 100, 224)}
OFA = "expanded_conv-input:56x56x24-output:28x28x40-expand:72-kernel:5-stride:2-idskip:0-se:1-hs:1"


def space_of(name):
    channels, classes, size = SIZES[name]
    return load_space(name).adapt(in_channels=channels, classes=classes, image_size=size)


def as_csv(costs):
    lines = [f"{name},{cost.latency_ms!r},{'' if cost.energy_mj is None else cost.energy_mj!r}" for name, cost in costs]
    return "block,latency_ms,energy_mj\n" + "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def modelled():
    """The digits space, a device without calls and runs, and a table of what it says of every block."""
    space, device = space_of("digits"), hw_models.load_device("tx2-gpu")
    free = {name: jnp.float32(0) for name in ("run_cycles", "run_s", "segment_cycles")}
    device = hw_models.with_clocks(
        device.replace(correction=None, **free), core_hz=[1300.5e6], memory_hz=[1866e6], host_hz=[2035.2e6]
    )
    price = jax.jit(
        lambda layers: jax.tree.map(jnp.sum, hw_models.cost(layers, device, hw_models.default_point(device)))
    )
    found = {name: price(block_layers(parse_block(name))) for name in block_names(space)}
    costs = {name: BlockCost(1e3 * float(each.latency_s), 1e3 * float(each.energy_j)) for name, each in found.items()}
    return space, device, costs


def drawn(space, count=6):
    genomes = np.random.default_rng(0).integers(0, space.codec.cardinalities, (count, len(space.codec.names)))
    return jnp.asarray(genomes, jnp.int32)


def test_a_table_of_a_devices_blocks_prices_networks_as_the_device(modelled):
    space, device, costs = modelled
    table = table_device(block_table(costs), name="table", board_w=0.0)
    genomes = drawn(space)
    indices = jnp.zeros((len(genomes), 3), jnp.int32)

    @jax.jit
    def priced(device):
        by_segment = jax.vmap(lambda genome: segment_costs(space, space.decode(genome), device))(genomes)
        blocks = block_costs(space, device)
        of_all = population_cost(space, blocks, device, genomes=genomes, indices=indices)
        return by_segment, of_all, static_costs(space, genomes, device)

    for found, expected in zip(*(jax.tree.leaves(priced(each)) for each in (table, device)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["digits", *(pytest.param(name, marks=pytest.mark.slow) for name in list(SIZES)[1:])])
def test_every_network_of_a_space_is_made_of_its_blocks_each_told_from_all_others(name):
    space = space_of(name)
    names = block_names(space)
    assert [parse_block(each).name for each in names] == names
    table = block_table({each: BlockCost(1.0) for each in names})
    close = np.abs(table.sums[:, None] - table.sums[None]) <= 1e-5 * table.sums[None]
    assert np.asarray(close).all(-1).sum() == len(names)
    device = table_device(table, name="ones", board_w=2.0)
    require_priced(space, device)
    genome = drawn(space)[0]
    blocks = 1 + space.decode(genome).depth.sum() + 4
    found = jax.jit(lambda genome: segment_costs(space, space.decode(genome), device))(genome)
    trunk = found.latency_s[: space.num_exits + 1].sum()
    assert float(trunk) == pytest.approx(1e-3 * float(blocks), rel=1e-5)
    assert float(found.energy_j[: space.num_exits + 1].sum()) == pytest.approx(2 * float(trunk), rel=1e-5)


def test_a_block_that_a_table_lacks_is_named_in_one_line(modelled):
    space, _, costs = modelled
    first, *others = costs
    device = table_device(block_table({name: costs[name] for name in others[1:]}), name="mine", board_w=0.0)
    message = (
        f"mine: expected a table of all 117 blocks of digits, got none of {first} and 1 more; hadas devices blocks"
    )
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}[^\n]*$"):
        require_priced(space, device)


def test_files_of_once_for_alls_users_are_devices(tmp_path):
    ratio = "expanded_conv-input:28x28x40-output:28x28x40-expand:3-kernel:3-stride:1-idskip:1"
    content = {
        "Conv-input:224x224x3-output:112x112x16": {"mean": 1.5, "std": 0.1},
        OFA.replace("hs:1", "hs:0"): {"mean": 9.0},
        OFA: {"mean": 2.5},
        ratio: {"mean": 1.25},
    }
    (tmp_path / "note10.yaml").write_text(yaml.safe_dump(content))
    file = read_device_file(tmp_path / "note10.yaml")
    assert (file.name, file.latency, len(file.blocks.costs)) == ("note10", None, 4)
    assert "it has no energies, so they are those of 1 W" in file.description
    device = to_device(file)
    latencies = dict(zip(device.blocks.names, np.asarray(device.blocks.latency_s).tolist(), strict=True))
    assert latencies[OFA] == pytest.approx(2.5e-3)
    assert latencies[ratio.replace("expand:3", "expand:120") + "-se:0-hs:1"] == pytest.approx(1.25e-3)
    assert float(device.board_w) == 1


def test_a_csv_file_has_energies_and_a_base_for_every_network(tmp_path):
    path = tmp_path / "My Table.csv"
    costs = {BASE: BlockCost(0.5, 1.0), "Conv-input:8x8x1-output:8x8x8": BlockCost(1.0, 2.0), OFA: BlockCost(2.0, 3.0)}
    path.write_text(as_csv(costs.items()))
    assert read_block_costs(path) == costs
    device = to_device(read_device_file(path))
    assert device.name == "my-table"
    np.testing.assert_allclose(device.blocks.latency_s, [1.5e-3, 2e-3], rtol=1e-6)
    np.testing.assert_allclose(device.blocks.energy_j, [3e-3, 3e-3], rtol=1e-6)
    path.write_text("block,latency_us\n" + f"{OFA},2500\n")
    assert read_block_costs(path)[OFA].latency_ms == 2.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("block,latency_ms\nfire-1,2\n", "expected the name of a block such as expanded_conv-input"),
        (f"block,latency_ms\n{OFA},2\n{OFA},3\n", "line 3: expected each block once"),
        (f"block,latency_ms\n{OFA},-2\n", "line 2: latency_ms: expected a number of at least 0, got '-2'"),
        (f"block,latency_ms\n{OFA},\n", "line 2: latency_ms: expected a number of at least 0, got ''"),
        ("block,latency_ms\n", "expected at least one block, got none"),
        ("position,choice,latency_ms\n0,1,2\n", "expected"),
        (
            f"block,latency_ms,energy_mj\n{OFA},1,2\nLogits-input:1x1x9-output:2,1,\n",
            "for all 2 blocks or for none, got 1",
        ),
        ("block,latency_ms\nConv-input:8x9x1-output:8x8x8,2\n", "expected a block on square maps"),
        ("block,latency_ms\nexpanded_conv-input:8x8x1-output:8x8x8,2\n", "expected a block on square maps"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(content, message, tmp_path):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"t\.csv[^\n]*{re.escape(message)}[^\n]*$"):
        read_device_file(tmp_path / "t.csv")
