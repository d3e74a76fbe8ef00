import dataclasses

import pytest

from hadas_jax.methods.eh_dnas import DnasSettings
from hadas_jax.methods.eh_dnas.hardware import Constraint

WRONG = [
    ("dataset", 3, "--dataset: expected text, got 3"),
    ("data_dir", 3, "--data-dir: expected text, got 3"),
    ("image_size", 0, "--image-size: expected a whole number of at least 1, got 0"),
    ("split_seed", -1, "--split-seed: expected a whole number of at least 0 and of at most 4294967293, got -1"),
    ("skip_unreadable", 1, "--skip-unreadable: expected true or false, got 1"),
    ("hardware", None, "--hardware: expected text, got None"),
    ("fpga", 4, "--fpga: expected text, got 4"),
    ("predictor", 4, "--predictor: expected text, got 4"),
    ("predictor_kind", "luck", "--predictor-kind: expected one of mlp, embedding, lookup, got 'luck'"),
    ("predictor_samples", 0, "--predictor-samples: expected a whole number of at least 1, got 0"),
    ("power_mode", "maxn", "--power-mode: expected with a device as --hardware, got it with generic; "),
    ("number_format", "int8", "--number-format: expected with a device as --hardware, got it with generic; "),
    ("search_clocks", True, "--search-clocks: expected with a device as --hardware, got it with generic"),
    ("core_mhz", 3, "--core-mhz: expected a list of clocks in MHz, got 3"),
    ("memory_mhz", (0,), "--memory-mhz: expected a number above 0, got 0"),
    ("host_mhz", (-1.0,), "--host-mhz: expected a number above 0, got -1.0"),
    ("minimise", "energy", "--minimise: expected latency for a generic accelerator, got 'energy'"),
    ("weight", -0.1, "--weight: expected a number of at least 0, got -0.1"),
    ("form", "inverse", "--form: expected one of log, relative, got 'inverse'"),
    ("min_fps", 0, "--min-fps: expected a number above 0, got 0"),
    ("max_latency_ms", 3.0, "--max-latency-ms: expected with a device as --hardware, got it with generic; "),
    ("max_energy_mj", 3.0, "--max-energy-mj: expected with a device as --hardware, got it with generic; "),
    ("budget_ascent", 0, "--budget-ascent: expected a number above 0, got 0"),
    ("channels", 1, "--channels: expected a whole number of at least 2, got 1"),
    ("cells", 2, "--cells: expected a whole number of at least 3, got 2"),
    ("priced", "luck", "--priced: expected one of data, e2e-perf, got 'luck'"),
    ("order", "third", "--order: expected one of first, second, got 'third'"),
    ("relaxation", "luck", "--relaxation: expected one of softmax, gumbel, got 'luck'"),
    ("temperature", (1.0,), "--temperature: expected two numbers, got 1"),
    ("epochs", 0, "--epochs: expected a whole number of at least 1, got 0"),
    ("batch", 1.5, "--batch: expected a whole number of at least 1, got 1.5"),
    ("learning_rate", 0, "--learning-rate: expected a number above 0, got 0"),
    ("weight_decay", -1, "--weight-decay: expected a number of at least 0, got -1"),
    ("alpha_learning_rate", 0, "--alpha-learning-rate: expected a number above 0, got 0"),
    ("alpha_weight_decay", -1, "--alpha-weight-decay: expected a number of at least 0, got -1"),
    ("augmentation", "luck", "--augmentation: expected one of none, affine, crop-flip, randaugment, got 'luck'"),
    ("dtype", "float16", "--dtype: expected one of float32, bfloat16, got 'float16'"),
    ("remat", 1, "--remat: expected true or false, got 1"),
    ("seed", -1, "--seed: expected a whole number of at least 0, got -1"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_a_setting_out_of_range_names_its_flag(name, value, expected):
    with pytest.raises(ValueError, match="expected") as caught:
        DnasSettings(**{name: value})
    assert str(caught.value).startswith(expected)


def test_every_setting_is_checked():
    assert [name for name, _, _ in WRONG] == [field.name for field in dataclasses.fields(DnasSettings)]


def test_budgets_are_in_seconds_per_image_and_joules():
    assert DnasSettings().constraints == ()
    assert DnasSettings(min_fps=1000.0).constraints == (Constraint("latency", 0.001),)
    both = DnasSettings(hardware="tx2-gpu", min_fps=100.0, max_latency_ms=5.0, max_energy_mj=20.0)
    assert both.constraints == (Constraint("latency", 0.005), Constraint("energy", 0.02))


def test_settings_come_back_from_a_file_as_they_went():
    settings = DnasSettings(hardware="tx2-gpu", core_mhz=(1300.5,), temperature=(4.0, 0.2))
    stored = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(settings).items()}
    assert DnasSettings.from_mapping(stored, source="config.json") == settings
