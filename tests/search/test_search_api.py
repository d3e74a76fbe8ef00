import doctest

import pytest

from hadas_jax import search
from hadas_jax.search import nsga2

NAMES = {
    *("NSGA2", "Params", "State"),
    *("Best", "ProductFront", "best_under", "grid_front", "grid_hypervolume"),
    *("product_front", "whole_product_front"),
    *("crowding_distance", "non_dominated_mask", "non_dominated_ranks", "truncate"),
    *("hypervolume", "ratio_of_dominance"),
    *("first_occurrences", "mutate", "sample", "tournament", "uniform_crossover"),
}


def test_the_public_names_are_these():
    assert set(search.__all__) == NAMES
    assert len(search.__all__) == len(NAMES)
    assert all(getattr(search, name).__doc__ for name in NAMES)


@pytest.mark.parametrize("module", [search, nsga2])
def test_the_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
