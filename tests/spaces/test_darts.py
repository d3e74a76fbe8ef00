import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas_jax.spaces.darts import OPERATIONS, check_code, derive_code, format_code, is_valid, parse_code, sample_codes

NODE_SLICES = [slice(14 * cell + a, 14 * cell + b) for cell in (0, 1) for a, b in ((0, 2), (2, 5), (5, 9), (9, 14))]
PAIRS = {size: list(itertools.combinations(range(size), 2)) for size in (2, 3, 4, 5)}
COUNT = 40_000
valid, derived = jax.jit(is_valid), jax.jit(derive_code)


@st.composite
def codes(draw) -> np.ndarray:
    code = np.zeros(28, np.int32)
    for where in NODE_SLICES:
        for edge in draw(st.sampled_from(PAIRS[where.stop - where.start])):
            code[where.start + edge] = draw(st.integers(1, 7))
    return code


@pytest.fixture(scope="module")
def draw_codes():
    draw = jax.jit(sample_codes, static_argnums=1, static_argnames=("operations", "different"))
    return lambda seed, **options: np.asarray(draw(jax.random.key(seed), COUNT, **options))


@pytest.fixture(scope="module")
def drawn(draw_codes):
    return draw_codes(0)


@given(codes())
def test_a_code_written_and_read_is_the_code(code):
    assert parse_code(format_code(code)).tolist() == code.tolist()


@given(codes())
def test_codes_with_two_edges_to_every_node_are_valid(code):
    assert bool(valid(code))
    assert check_code(code).tolist() == code.tolist()


@given(codes(), st.integers(0, 27), st.integers(-1, 8))
def test_the_vectorised_check_agrees_with_the_one_that_explains(code, edge, digit):
    code[edge] = digit
    try:
        check_code(code)
        explained = True
    except ValueError:
        explained = False
    assert bool(valid(code)) == explained


def test_every_drawn_code_is_a_network(drawn):
    assert bool(jnp.all(valid(drawn)))


def test_every_pair_of_edges_is_equally_likely(drawn):
    for where in NODE_SLICES:
        present = drawn[:, where] != 0
        for low, high in PAIRS[where.stop - where.start]:
            share = np.mean(present[:, low] & present[:, high])
            assert share == pytest.approx(1 / len(PAIRS[where.stop - where.start]), abs=0.015)


def test_every_operation_is_equally_likely_at_every_edge(drawn):
    for edge in range(28):
        digits = drawn[:, edge][drawn[:, edge] != 0]
        np.testing.assert_allclose(np.bincount(digits, minlength=8)[1:] / len(digits), 1 / 7, atol=0.02)


def test_edges_of_different_nodes_are_independent(drawn):
    both = np.mean((drawn[:, 0] == 5) & (drawn[:, 14] == 5))
    assert both == pytest.approx(1 / 49, abs=0.004)


def test_only_the_operations_asked_for_are_drawn(draw_codes):
    found = draw_codes(1, operations=(3, 5))
    assert set(np.unique(found).tolist()) == {0, 3, 5}
    assert bool(jnp.all(valid(found)))


def test_the_two_operations_of_a_node_differ_where_they_must(draw_codes):
    found = draw_codes(2, operations=(1, 2, 3, 4, 5, 6), different=True)
    by_node = found[found != 0].reshape(COUNT, 8, 2)
    assert np.all(by_node[..., 0] != by_node[..., 1])
    np.testing.assert_allclose(np.bincount(by_node.ravel(), minlength=7)[1:] / by_node.size, 1 / 6, atol=0.005)
    pairs = np.bincount(8 * by_node[:, 3, 0] + by_node[:, 3, 1], minlength=64)
    np.testing.assert_allclose(pairs[pairs > 0] / COUNT, 1 / 30, atol=0.006)


def test_equal_keys_draw_equal_codes(draw_codes, drawn):
    np.testing.assert_array_equal(draw_codes(0), drawn)


def derived_by_a_loop(alpha: np.ndarray) -> list[int]:
    shares = np.exp(alpha) / np.exp(alpha).sum(1, keepdims=True)
    code = np.zeros(28, int)
    for where in NODE_SLICES:
        edges = sorted(range(where.start, where.stop), key=lambda edge: -max(shares[edge, 1:]))[:2]
        for edge in edges:
            code[edge] = 1 + int(np.argmax(shares[edge, 1:]))
    return code.tolist()


def test_the_derived_code_is_that_of_a_plain_loop():
    alphas = np.random.default_rng(0).normal(0, 2, (50, 28, 8)).astype(np.float32)
    found = np.asarray(jax.jit(jax.vmap(derive_code))(alphas))
    assert found.tolist() == [derived_by_a_loop(alpha) for alpha in alphas]


def test_none_is_never_derived_but_weakens_its_edge():
    alpha = np.zeros((28, 8), np.float32)
    alpha[:, 4] = 1.0
    alpha[2, 0] = 5.0
    code = np.asarray(derived(alpha))
    assert code[2:5].tolist() == [0, 4, 4]
    assert bool(valid(code))


@given(codes())
def test_the_code_is_derived_from_a_strong_preference_for_it(code):
    alpha = 4.0 * np.eye(8, dtype=np.float32)[code]
    assert np.asarray(derived(alpha)).tolist() == code.tolist()


def valid_code(**changes: int) -> list[int]:
    code = [1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0] * 2
    for edge, digit in changes.items():
        code[int(edge[1:])] = digit
    return code


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (valid_code(e3=8), "expected digits from 0 to 7, got 8 at edge 3 of the normal cell"),
        (valid_code(e14=-1), "got -1 at edge 0 of the reduce cell"),
        (valid_code(e19=0), r"expected 2 edges to node 2 of the reduce cell, got 1 \(0100\)"),
        (valid_code(e4=1), r"expected 2 edges to node 1 of the normal cell, got 3 \(111\)"),
        (valid_code()[:27], r"expected 28 whole numbers, got int64\[27\]"),
        ([valid_code()], r"expected 28 digits, got an array of shape \(1, 28\)"),
        (np.ones(28), r"expected 28 whole numbers, got float64\[28\]"),
    ],
)
def test_a_wrong_code_is_refused_with_what_is_wrong(code, message):
    with pytest.raises(ValueError, match=message):
        check_code(code)


@pytest.mark.parametrize("text", ["", "11", "1" * 29, "x" * 28, "²" * 28])
def test_text_that_is_no_code_is_refused(text):
    with pytest.raises(ValueError, match="expected 28 digits, got"):
        parse_code(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operations": (0, 1)}, "expected digits from 1 to 7, got 0"),
        ({"operations": (1, 8)}, "expected digits from 1 to 7, got 8"),
        ({"operations": ()}, r"at least 1 different digits, got \(\)"),
        ({"operations": (2, 2)}, r"different digits, got \(2, 2\)"),
        ({"operations": (2,), "different": True}, r"at least 2 different digits, got \(2,\)"),
        ({"count": -1}, "count: expected 0 or more, got -1"),
    ],
)
def test_a_draw_without_a_choice_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample_codes(jax.random.key(0), **{"count": 1, **options})


@pytest.mark.parametrize(
    "alpha", [np.zeros((14, 8), np.float32), np.zeros((28, 7), np.float32), np.zeros((28, 8), int)]
)
def test_alpha_of_another_shape_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha: expected float\[28, 8\], got"):
        derive_code(alpha)


def test_there_are_eight_operations_and_none_is_the_first():
    assert len(OPERATIONS) == 8
    assert OPERATIONS[0] == "none"
