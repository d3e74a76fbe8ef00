import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces.darts import sample_codes
from hadas_jax.spaces.darts_costs import (
    PARADIGMS,
    darts_counts,
    generic_table_name,
    published_generic_table,
    throughput_table,
)
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hw_models.accelerator import (
    FpgaTooSmallError,
    generic_cost,
    load_fpga,
    pipeline_cost,
)

NETWORK = DartsNetwork()


def test_the_published_table_is_taken_where_there_is_one():
    ku115, zc706 = load_fpga("ku115"), load_fpga("zc706")
    assert generic_table_name(NETWORK, ku115) == "published"
    assert generic_table_name(NETWORK, ku115, table="fitted") == "fitted"
    assert generic_table_name(NETWORK, zc706) == "fitted"
    assert generic_table_name(DartsNetwork(channels=18), ku115) == "fitted"


@pytest.mark.slow
def test_tables_price_as_the_full_forms_do():
    codes, fpga = sample_codes(jax.random.key(0), 5), load_fpga("ku115")
    small = DartsNetwork(channels=8, cells=3)
    rows = network_rows(small)
    full = {
        "published": published_generic_table().cost,
        "fitted": lambda counts: generic_cost(rows, counts, fpga),
        None: lambda counts: pipeline_cost(rows, counts, fpga),
    }
    for table, cost in full.items():
        paradigm = "generic" if table else "pipeline"
        network = NETWORK if table == "published" else small
        found = throughput_table(paradigm, network, fpga=fpga, table=table)(codes)
        expected = jax.jit(jax.vmap(lambda code, cost=cost: cost(darts_counts(code)).throughput))(
            codes.astype(jnp.int32)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_there_is_no_table_for_is_refused():
    ku115, zc706 = load_fpga("ku115"), load_fpga("zc706")
    with pytest.raises(ValueError, match="table: expected one of published, fitted, got 'mine'"):
        generic_table_name(NETWORK, ku115, table="mine")
    with pytest.raises(ValueError, match="table published: expected the default network on ku115, got another network"):
        throughput_table("generic", NETWORK, fpga=zc706, table="published")
    with pytest.raises(ValueError, match="paradigm: expected one of generic, pipeline, got 'serial'"):
        throughput_table("serial", NETWORK, fpga=ku115)


def test_an_fpga_without_an_engine_is_refused():
    nothing = dataclasses.replace(load_fpga("ku115"), dsp=jnp.float32(0.0))
    assert PARADIGMS == ("generic", "pipeline")
    with pytest.raises(FpgaTooSmallError, match="usable DSPs for the smallest engine"):
        throughput_table("generic", NETWORK, fpga=nothing, table="fitted")
