"""Tests of the layer table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw


def make(length, **changes):
    columns = {
        "kind": [hw.LayerKind.DENSE] * length,
        "macs": [1e6] * length,
        "weight_elements": [10.0] * length,
        "input_elements": [20.0] * length,
        "output_elements": [30.0] * length,
    }
    return hw.layer_table(**(columns | changes))


def test_columns_have_the_documented_types():
    table = make(3)
    assert table.kind.dtype == jnp.int32
    others = [getattr(table, field.name) for field in dataclasses.fields(table) if field.name != "kind"]
    assert all(column.dtype == jnp.float32 and column.shape == (3,) for column in others)


def test_a_column_of_another_length_is_named():
    with pytest.raises(AssertionError, match=r"has shape \(2,\) but expected \(3,?\).*macs of a layer table"):
        make(3, macs=[1.0, 2.0])


def test_a_table_without_a_layer_axis_is_refused():
    with pytest.raises(AssertionError, match=r"kind: expected a layer table of shape \[\.\.\., L\]"):
        hw.layer_table(0, 1.0, weight_elements=1.0, input_elements=1.0, output_elements=1.0)


def test_totals_of_mobilenet_v2_are_the_published_ones(mobilenet):
    np.testing.assert_allclose(hw.total_macs(mobilenet), 0.30e9, rtol=0.01)
    np.testing.assert_allclose(hw.total_weights(mobilenet), 3.5e6, rtol=0.01)


def test_totals_leave_out_padding_whatever_stands_there():
    table = make(3, active=[1, 0, 1], macs=[1e6, np.nan, 2e6], weight_elements=[1, np.inf, 2])
    assert hw.total_macs(table) == 3e6
    assert hw.total_weights(table) == 3


def test_operations_of_pooling_and_elementwise_layers_are_no_macs():
    kinds = [hw.LayerKind.POOLING, hw.LayerKind.ELEMENTWISE, hw.LayerKind.LINEAR]
    assert hw.total_macs(make(3, kind=kinds)) == 1e6


def test_concatenation_joins_the_layer_axis_also_of_batches():
    joined = hw.concatenate([make(2), make(3)])
    assert joined.macs.shape == (5,)
    batched = jax.tree.map(lambda column: jnp.stack([column, column]), make(2))
    assert hw.concatenate([batched, batched]).kind.shape == (2, 4)
    with pytest.raises(ValueError, match="at least one layer table, got none"):
        hw.concatenate([])
