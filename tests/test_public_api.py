import importlib

import pytest

API = {
    "hadas_jax": ["__version__"],
    "hadas_jax.data": ["LabelledImages", "Splits", "check_arrays", "dataset_names", "load_dataset", "split"],
    "hadas_jax.report": ["LineProgress", "LiveProgress", "levels_table", "plot_front", "print_result"],
    "hadas_jax.supernet": [
        "BatchStats",
        "Logits",
        "Parameters",
        "Tree",
        "apply",
        "apply_training",
        "estimate_batch_stats",
        "initialise",
        "is_kernel",
    ],
    "hadas_jax.training": [
        "TrainState",
        "exit_losses",
        "exit_step",
        "init_state",
        "sandwich_backbones",
        "sandwich_step",
        "sgd",
    ],
    "hadas_jax.evaluation": [
        "POLICIES",
        "Outcomes",
        "SubsetStats",
        "calibrate_thresholds",
        "count_bits",
        "dissimilarity",
        "ideal_stops",
        "mean_dissimilarity",
        "pack_bits",
        "population_outcomes",
        "scores",
        "segment_costs",
        "static_weights",
        "subset_stats",
        "threshold_stops",
    ],
}


@pytest.mark.parametrize("name", API)
def test_the_public_names_of_a_package_are_these(name):
    module = importlib.import_module(name)
    assert module.__all__ == API[name]
    assert all(hasattr(module, public) for public in module.__all__)
