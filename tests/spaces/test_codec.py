import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas_jax.spaces.mbconv import Codec

PAIR = Codec(names=("a", "b"), choices=((3, 1, 2), (7, 9)))


@st.composite
def codecs(draw):
    options = st.lists(st.integers(-50, 50), min_size=1, max_size=5, unique=True).map(tuple)
    choices = tuple(draw(st.lists(options, min_size=1, max_size=6)))
    return Codec(names=tuple(f"gene{i}" for i in range(len(choices))), choices=choices)


@settings(max_examples=25)
@given(codecs(), st.integers(0, 2**32))
def test_encoding_undoes_decoding(codec, seed):
    genome = np.random.default_rng(seed).integers(0, codec.cardinalities).astype(np.int32)
    values = np.asarray(codec.decode(jnp.asarray(genome)))
    assert values.tolist() == [o[g] for o, g in zip(codec.choices, genome, strict=True)]
    assert (codec.encode(values.tolist()) == genome).all()


def test_the_count_is_the_product_of_the_cardinalities_and_exact():
    wide = Codec(names=tuple("abcdefghijklmnopqrstu"), choices=(tuple(range(10)),) * 21)
    assert wide.count == 10**21


def test_indices_past_the_end_read_the_last_choice():
    assert PAIR.decode(jnp.array([9, 2], jnp.int32)).tolist() == [2, 9]


def test_decoding_under_vmap_equals_a_loop():
    genomes = jnp.array([[0, 0], [1, 1], [2, 0]], jnp.int32)
    assert jax.vmap(PAIR.decode)(genomes).tolist() == [PAIR.decode(g).tolist() for g in genomes]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([4, 7], r"gene a: expected one of \(3, 1, 2\), got 4"),
        ([1, 8], r"gene b: expected one of \(7, 9\), got 8"),
        ([1], "expected 2 values, one per gene, got 1"),
        ([1, 7, 7], "expected 2 values, one per gene, got 3"),
    ],
)
def test_a_value_that_is_no_choice_is_named_with_its_gene(values, message):
    with pytest.raises(ValueError, match=message):
        PAIR.encode(values)


@pytest.mark.parametrize("options", [(), (1, 1)])
def test_a_gene_needs_different_choices(options):
    with pytest.raises(ValueError, match="gene b: expected one or more different choices, got"):
        Codec(names=("a", "b"), choices=((1,), options))


def test_every_gene_needs_a_name():
    with pytest.raises(ValueError, match="expected one name per gene, got 1 and 2"):
        Codec(names=("a",), choices=((1,), (2,)))
