import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas_jax.report.darts import plot_genotype
from hadas_jax.spaces.darts import check_code, is_valid
from hadas_jax.spaces.genotypes import PUBLISHED_GENOTYPES, Genotype, code_of, published_genotype

DARTS_V2_TEXT = (
    "DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)


@pytest.mark.parametrize("name", PUBLISHED_GENOTYPES)
def test_published_genotypes_survive_code_and_text(name):
    genotype = published_genotype(name)
    code = code_of(genotype)
    assert check_code(code).tolist() == code.tolist()
    assert Genotype.parse(str(genotype)) == genotype
    assert code_of(Genotype.of(code)).tolist() == code.tolist()


@given(st.integers(0, 10**6))
def test_every_code_survives_its_genotype(seed):
    rng = np.random.default_rng(seed)
    code = np.zeros(28, np.int32)
    for cell in (0, 14):
        for start, size in ((0, 2), (2, 3), (5, 4), (9, 5)):
            code[cell + start + rng.choice(size, 2, replace=False)] = rng.integers(1, 8, 2)
    assert bool(is_valid(code))
    assert code_of(Genotype.of(code)).tolist() == code.tolist()
    assert Genotype.parse(str(Genotype.of(code))) == Genotype.of(code)


def test_the_text_that_darts_writes_is_read():
    assert Genotype.parse(DARTS_V2_TEXT) == published_genotype("DARTS_V2")


def test_the_order_of_the_edges_of_a_node_does_not_matter():
    genotype = published_genotype("DARTS_V1")
    turned = tuple(edge for i in range(0, 8, 2) for edge in (genotype.normal[i + 1], genotype.normal[i]))
    assert code_of(Genotype(turned, genotype.reduce)).tolist() == code_of(genotype).tolist()


def test_a_cell_as_a_graph_has_its_edges_and_the_concatenation():
    graph = published_genotype("OURS_ACC").graph("normal")
    assert graph.nodes == ("c_{k-2}", "c_{k-1}", "0", "1", "2", "3", "c_{k}")
    assert graph.edges[:4] == (
        (0, 2, "skip_connect"),
        (1, 2, "dil_conv_3x3"),
        (0, 3, "skip_connect"),
        (2, 3, "dil_conv_5x5"),
    )
    assert graph.edges[8:] == ((2, 6, ""), (3, 6, ""), (4, 6, ""), (5, 6, ""))


def test_both_cells_are_drawn(tmp_path):
    plot_genotype(published_genotype("OURS_PIP"), tmp_path / "genotype.png")
    assert (tmp_path / "genotype.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a file that can be written, got: No such file"):
        plot_genotype(published_genotype("OURS_PIP"), tmp_path / "missing" / "genotype.png")


EDGES = str(list(published_genotype("DARTS_V2").normal))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("normal=[]", r"expected Genotype\(normal"),
        ("Genotype(normal=[", r"expected Genotype\(normal"),
        ("Genotype([], [])", r"expected Genotype\(normal"),
        (f"Genotype(normal={EDGES})", "reduce: expected a list of .* got nothing"),
        (f"Genotype(normal={EDGES}, reduce=__import__('os'))", r"reduce: expected a list .*__import__"),
        (f"Genotype(normal={EDGES}, reduce=3)", "reduce: expected a list .* got '3'"),
        (f"Genotype(normal={EDGES}, reduce={EDGES}, other=1)", "expected fields normal, .* got other"),
        (f"Genotype(normal={EDGES}, reduce=[])", "reduce: expected 8 edges, got 0"),
        (f"Genotype(normal={EDGES}, reduce={EDGES}, reduce_concat=range(3, 6))", r"reduce_concat: .* got \[3, 4, 5\]"),
        (f"Genotype(normal={EDGES}, reduce={EDGES}, reduce_concat=x)", "expected a concat such as"),
        (f"Genotype(normal={EDGES}, reduce={EDGES.replace('dil_conv', 'conv')})", "expected one of .*got 'conv_3x3'"),
        (f"Genotype(normal={EDGES}, reduce={EDGES.replace(', 2)', ', 9)')})", "node 3: expected an input from 0 to 4"),
        (f"Genotype(normal={EDGES}, reduce={EDGES.replace(', 2)', ', 0)')})", "two different inputs, got 0 twice"),
    ],
)
def test_text_that_is_no_genotype_is_refused_with_what_is_wrong(text, message):
    with pytest.raises(ValueError, match=message):
        Genotype.parse(text)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="expected one of DARTS_V1, DARTS_V2, OURS_ACC, OURS_PIP, got 'PNAS'"):
        published_genotype("PNAS")
    with pytest.raises(ValueError, match="cell: expected one of normal, reduce, got 'other'"):
        published_genotype("DARTS_V1").graph("other")
