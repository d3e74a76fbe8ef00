import dataclasses

import pytest

from hadas_jax.methods import Settings, TrainingSettings, TrainSettings
from hadas_jax.training import SandwichOptions

WRONG = [
    ("dataset", 3, "--dataset: expected text, got 3"),
    ("data_dir", 3, "--data-dir: expected text, got 3"),
    ("image_size", 0, "--image-size: expected a whole number of at least 1, got 0"),
    ("split_seed", -1, "--split-seed: expected a whole number of at least 0 and of at most 4294967293, got -1"),
    ("skip_unreadable", 1, "--skip-unreadable: expected true or false, got 1"),
    ("evaluation_images", 0, "--evaluation-images: expected a whole number of at least 1, got 0"),
    ("space", 3, "--space: expected text, got 3"),
    ("resolutions", 192, "--resolutions: expected a list of pixels, got 192"),
    ("checkpoint", True, "--checkpoint: expected text, got True"),
    ("epochs", 0, "--epochs: expected a whole number of at least 1, got 0"),
    ("exit_epochs", 0, "--exit-epochs: expected a whole number of at least 1, got 0"),
    ("batch", 1.5, "--batch: expected a whole number of at least 1, got 1.5"),
    ("learning_rate", 0, "--learning-rate: expected a number above 0, got 0"),
    ("exit_learning_rate", float("nan"), "--exit-learning-rate: expected a number above 0, got nan"),
    ("weight_decay", -1e-5, "--weight-decay: expected a number of at least 0, got -1e-05"),
    ("sampled", -1, "--sampled: expected a whole number of at least 0, got -1"),
    ("sampling", "luck", "--sampling: expected one of uniform, bestup, got 'luck'"),
    ("distillation", "luck", "--distillation: expected one of kl, alpha, got 'luck'"),
    ("label_smoothing", 1, "--label-smoothing: expected a number of at least 0 and below 1, got 1"),
    ("dropout", 1.0, "--dropout: expected a number of at least 0 and below 1, got 1.0"),
    ("drop_connect", -0.1, "--drop-connect: expected a number of at least 0 and below 1, got -0.1"),
    ("augmentation", "luck", "--augmentation: expected one of none, affine, crop-flip, randaugment, got 'luck'"),
    ("dtype", "float16", "--dtype: expected one of float32, bfloat16, got 'float16'"),
    ("remat", 1, "--remat: expected true or false, got 1"),
    ("cut", True, "--cut: expected with --remat, which keeps its memory in bounds, got it alone"),
    ("data_parallel", "yes", "--data-parallel: expected true or false, got 'yes'"),
    ("stats_batches", 0, "--stats-batches: expected a whole number of at least 1, got 0"),
    ("eval_batch", 0, "--eval-batch: expected a whole number of at least 1, got 0"),
    ("group", -1, "--group: expected a whole number of at least 1, got -1"),
    ("seed", -1, "--seed: expected a whole number of at least 0, got -1"),
    ("exits_for", 3, "--exits-for: expected text, got 3"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_a_setting_out_of_range_names_its_flag(name, value, expected):
    with pytest.raises(ValueError, match="expected") as caught:
        TrainSettings(**{name: value})
    assert str(caught.value) == expected


def test_every_setting_is_checked():
    assert [name for name, _, _ in WRONG] == [field.name for field in dataclasses.fields(TrainSettings)]


def test_resolutions_are_positive():
    with pytest.raises(ValueError, match="--resolutions: expected a whole number above 0, got -32"):
        TrainingSettings(resolutions=(32, -32))


def test_a_checkpoint_may_be_kept_without_training_its_supernet():
    assert TrainSettings(checkpoint="net", epochs=0).epochs == 0
    with pytest.raises(ValueError, match="--epochs: expected a whole number of at least 0, got -1"):
        TrainSettings(checkpoint="net", epochs=-1)


def test_both_commands_train_alike_by_default():
    search, train = Settings(), TrainSettings()
    assert all(getattr(search, f.name) == getattr(train, f.name) for f in dataclasses.fields(TrainingSettings))


def test_options_of_the_sandwich_rule_are_taken_over():
    settings = TrainSettings(
        sampled=3, sampling="bestup", distillation="alpha", dropout=0.2, drop_connect=0.1, dtype="bfloat16"
    )
    options = SandwichOptions(**settings.sandwich)
    shared = ("sampled", "sampling", "distillation", "label_smoothing", "dropout", "drop_connect", "dtype")
    assert all(getattr(options, name) == getattr(settings, name) for name in shared)


def test_lists_of_a_file_become_settings_and_a_wrong_value_names_the_file():
    found = TrainSettings.from_mapping({"resolutions": [192, 224], "exits_for": "a0"}, source="x")
    assert found == TrainSettings(resolutions=(192, 224), exits_for="a0")
    with pytest.raises(ValueError, match=r"^mine\.yaml: --dropout: expected a number"):
        TrainSettings.from_mapping({"dropout": 2}, source="mine.yaml")
    with pytest.raises(ValueError, match=r"^mine\.yaml: unknown setting 'population'"):
        TrainSettings.from_mapping({"population": 2}, source="mine.yaml")
