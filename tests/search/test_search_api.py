import doctest

import pytest

from hadas_jax import search
from hadas_jax.search import nsga2, relaxed

NAMES = {
    *("Elitist", "State", "NSGA2", "Params", "NSGA3", "RandomSearch", "Scalarised"),
    *("is_strategy", "load_strategy", "strategy_names"),
    *("Product", "ProductFront", "grid_hypervolume"),
    *("listed_front", "product_front", "whole_product_front"),
    *("crowding_distance", "non_dominated_mask", "non_dominated_ranks", "truncate"),
    *("hypervolume", "hypervolume_estimate", "igd_plus", "ratio_of_dominance"),
    *("Archive", "empty_archive", "insert"),
    *("Descents", "RelaxedParams", "logits_of", "relaxed_search"),
    *("Surrogate", "SurrogateState"),
    *("first_occurrences", "mutate", "sample", "tournament", "uniform_crossover"),
}


def test_the_public_names_are_these():
    assert set(search.__all__) == NAMES
    assert len(search.__all__) == len(NAMES)
    assert all(getattr(search, name).__doc__ for name in NAMES)


@pytest.mark.parametrize("module", [search, nsga2, relaxed])
def test_the_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
