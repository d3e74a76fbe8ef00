import pytest

from hadas_jax.methods import Settings


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("population", 0, "--population: expected a whole number of at least 1, got 0"),
        ("population", 1.5, "--population: expected a whole number of at least 1, got 1.5"),
        ("generations", -1, "--generations: expected a whole number of at least 1, got -1"),
        ("exit_epochs", True, "--exit-epochs: expected a whole number of at least 1, got True"),
        ("seed", -1, "--seed: expected a whole number of at least 0, got -1"),
        ("learning_rate", 0, "--learning-rate: expected a number above 0, got 0"),
        ("learning_rate", float("nan"), "--learning-rate: expected a number above 0, got nan"),
        ("elite_ratio", 1.5, "--elite-ratio: expected a number above 0 and of at most 1, got 1.5"),
        ("dataset", 3, "--dataset: expected text, got 3"),
        ("policy", "luck", "--policy: expected one of confidence, entropy, learned, got 'luck'"),
    ],
)
def test_a_setting_out_of_range_names_its_flag(name, value, expected):
    with pytest.raises(ValueError, match="expected") as caught:
        Settings(**{name: value})
    assert str(caught.value) == expected


def test_a_mapping_gives_settings_and_the_rest_by_default():
    assert Settings.from_mapping({"seed": 3}, source="x") == Settings(seed=3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1], "x: expected settings by name, got list"),
        (None, "x: expected settings by name, got NoneType"),
        ({"sed": 3}, "x: unknown setting 'sed': expected some of dataset, device"),
        ({"seed": "three"}, "x: --seed: expected a whole number of at least 0, got 'three'"),
    ],
)
def test_a_wrong_mapping_names_its_source(values, expected):
    with pytest.raises(ValueError, match="expected") as caught:
        Settings.from_mapping(values, source="x")
    assert str(caught.value).startswith(expected)
