import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas_jax.methods.eh_dnas.result import derive_feasible
from hadas_jax.spaces.darts import check_code, derive_code

CONVOLUTIONS = 4  # digits from here on


def _convolutions(code):
    return jnp.sum((code >= CONVOLUTIONS).astype(jnp.float32))


def _at_most(count):
    return lambda code: jnp.maximum(_convolutions(code) - count, 0.0)


@settings(max_examples=4)
@given(seed=st.integers(0, 2**31 - 1))
def test_a_network_within_its_budgets_is_what_alpha_stands_for(seed):
    alpha = jax.random.normal(jax.random.key(seed), (28, 8))
    np.testing.assert_array_equal(derive_feasible(alpha, lambda code: jnp.float32(0.0)), derive_code(alpha))


@settings(max_examples=4)
@given(seed=st.integers(0, 2**31 - 1), count=st.integers(0, 10))
def test_budgets_that_can_be_kept_are_kept(seed, count):
    alpha = jax.random.normal(jax.random.key(seed), (28, 8)).at[:, 6].add(2.0)
    code = derive_feasible(alpha, _at_most(count))
    assert np.sum(check_code(code) >= CONVOLUTIONS) <= count


def test_the_cheapest_change_in_probability_is_made():
    alpha = jnp.full((28, 8), -9.0).at[:, 5].set(1.0)
    # The first node of the reduce cell is nearly as well off with a skip at one edge.
    alpha = alpha.at[14, 3].set(0.9)
    code = derive_feasible(alpha, _at_most(15))
    expected = np.array(derive_code(alpha))
    expected[14] = 3
    np.testing.assert_array_equal(code, expected)


def test_where_no_network_fits_the_nearest_one_found_is_returned():
    alpha = jax.random.normal(jax.random.key(0), (28, 8))
    code = derive_feasible(alpha, lambda code: 1.0 + _convolutions(code))
    assert np.sum(check_code(code) >= CONVOLUTIONS) == 0
