"""Tests of lookup tables and their files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.lookup import (
    expected_lookup_cost,
    fit_lookup,
    lookup_cost,
    lookup_table,
    read_lookup,
    write_lookup,
)

price = jax.jit(lookup_cost)
priced = jax.jit(jax.vmap(lookup_cost, in_axes=(None, 0)))
expected = jax.jit(expected_lookup_cost)
HEADER = "position,choice,latency_ms,energy_mj\n"


def draw(seed, positions=5, options=3):
    rng = np.random.default_rng(seed)
    latency, energy = rng.gamma(2, 1e-3, (2, positions, options)).astype(np.float32)
    return lookup_table(latency, energy, base_latency_s=2e-3, base_energy_j=1e-2)


def draw_choices(seed, count=300, positions=5, options=3):
    return jnp.asarray(np.random.default_rng(seed).integers(0, options, (count, positions)), jnp.int32)


def test_cost_is_the_base_and_the_sum_of_entries():
    table = draw(0)
    cost = price(table, jnp.asarray([0, 1, 2, 1, 0]))
    wanted = 2e-3 + np.asarray(table.latency_s)[np.arange(5), [0, 1, 2, 1, 0]].sum()
    assert float(cost.latency_s) == pytest.approx(wanted, rel=1e-6)
    assert float(cost.energy_j) > 1e-2


def test_batch_is_a_loop_of_single_designs():
    table, choices = draw(1), draw_choices(1, count=4)
    batch = priced(table, choices)
    singles = [float(price(table, row).latency_s) for row in choices]
    np.testing.assert_allclose(batch.latency_s, singles, rtol=1e-6)


def test_one_hot_probabilities_cost_what_the_choices_cost():
    table, choices = draw(2), draw_choices(2, count=1)[0]
    relaxed = expected(table, jax.nn.one_hot(choices, 3, dtype=jnp.float32))
    exact = price(table, choices)
    np.testing.assert_allclose(relaxed.latency_s, exact.latency_s, rtol=1e-6)
    np.testing.assert_allclose(relaxed.energy_j, exact.energy_j, rtol=1e-6)


def test_gradient_of_the_expected_cost_is_the_table_even_beside_missing_entries():
    table = draw(3)
    table = table.replace(latency_s=table.latency_s.at[0, 0].set(jnp.nan))
    probabilities = jnp.full((5, 3), 1 / 3).at[0].set(jnp.asarray([0.0, 0.5, 0.5]))
    gradient = jax.jit(jax.grad(lambda p: expected(table, p).latency_s))(probabilities)
    np.testing.assert_allclose(gradient, jnp.nan_to_num(table.latency_s), rtol=1e-6)


def test_missing_entries_and_choices_outside_the_table_cost_infinity():
    table = draw(4)
    table = table.replace(latency_s=table.latency_s.at[1, 2].set(jnp.nan))
    assert np.isfinite(price(table, jnp.zeros(5, jnp.int32)).latency_s)
    for choice in (2, 3, -1):
        assert np.isinf(price(table, jnp.asarray([0, choice, 0, 0, 0])).latency_s)
    assert np.isinf(expected(table, jnp.full((5, 3), 1 / 3)).latency_s)


def test_energy_that_was_not_measured_is_infinite():
    table = lookup_table(jnp.ones((5, 3)))
    cost = price(table, jnp.asarray([0, 1, 0, 2, 1]))
    assert float(cost.latency_s) == 5
    assert np.isinf(cost.energy_j)


@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_a_table_fitted_to_networks_predicts_other_networks(seed):
    table, choices = draw(seed), draw_choices(seed)
    costs = priced(table, choices)
    fitted = fit_lookup(choices[:200], costs.latency_s[:200], options=3, energy_j=costs.energy_j[:200])
    predicted = priced(fitted, choices[200:])
    np.testing.assert_allclose(predicted.latency_s, costs.latency_s[200:], rtol=1e-3)
    np.testing.assert_allclose(predicted.energy_j, costs.energy_j[200:], rtol=1e-3)


def test_a_fitted_table_has_no_negative_entry_and_knows_what_it_has_not_seen():
    choices = draw_choices(6)[:200].at[:, 0].set(1)
    fitted = fit_lookup(choices, jnp.sum(choices, axis=1).astype(jnp.float32) * 1e-3 + 5e-3, options=3)
    seen = np.asarray(fitted.latency_s)
    assert np.isnan(seen[0]).tolist() == [True, False, True]
    assert (np.nanmin(seen, axis=1) == 0).all()


@pytest.mark.parametrize(
    ("choices", "message"),
    [(jnp.zeros(4, jnp.int32), r"expected \(5,?\).*choices"), (jnp.zeros(5), "expected <class 'int'>.*choices")],
)
def test_choices_of_another_form_are_named(choices, message):
    with pytest.raises(AssertionError, match=message):
        lookup_cost(draw(0), choices)


def test_other_shapes_are_named():
    with pytest.raises(AssertionError, match="probabilities"):
        expected_lookup_cost(draw(0), jnp.ones((2, 2)))
    with pytest.raises(AssertionError, match="energy_j, beside latency_s"):
        lookup_table(jnp.ones((2, 2)), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"expected choices \[N, P\]"):
        fit_lookup(jnp.zeros((3, 2), jnp.int32), jnp.ones(4), options=2)
    with pytest.raises(ValueError, match="choices: expected 0 to 1, got 0 to 2"):
        fit_lookup(jnp.asarray([[0], [2]]), jnp.ones(2), options=2)


def test_a_written_table_reads_back(tmp_path):
    table = draw(7)
    table = table.replace(
        latency_s=table.latency_s.at[1, 1].set(jnp.nan), energy_j=table.energy_j.at[0, 0].set(jnp.nan)
    )
    table = table.replace(energy_j=table.energy_j.at[1, 1].set(jnp.nan))
    write_lookup(table, tmp_path / "table.csv")
    again = read_lookup(tmp_path / "table.csv")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), table, again)


def test_a_file_that_exists_is_not_overwritten(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("mine")
    with pytest.raises(ValueError, match="expected a new file, got one that exists"):
        write_lookup(draw(0), path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "with the columns position, choice, latency_ms, energy_mj, got an empty file"),
        ("a,b\n", "expected the column position, got a, b"),
        (HEADER, "expected at least one entry, got none"),
        (HEADER + "0,0,1\n", "line 2: expected as many values as columns, 4, got 3"),
        (HEADER + "0,0,1,\n0,x,1,\n", "line 3: choice: expected a whole number from 0 to 10000, got 'x'"),
        (HEADER + "-1,0,1,\n", "line 2: position: expected a whole number"),
        (HEADER + "0,0,-1,\n", "line 2: latency_ms: expected a number of at least 0, got '-1'"),
        (HEADER + "0,0,nan,\n", "line 2: latency_ms: expected a number"),
        (HEADER + "0,0,,\n", "line 2: latency_ms: expected a number"),
        (HEADER + "0,0,1,\n0,0,2,\n", "line 3: expected each entry once, got position 0, choice 0 again"),
        (HEADER + "base,,1,\nbase,,1,\n", "line 3: expected one line of the base, got another"),
    ],
)
def test_a_wrong_file_is_explained_in_one_line(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_lookup(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(ValueError, match="expected a readable CSV file, got: No such file"):
        read_lookup(tmp_path / "none.csv")
