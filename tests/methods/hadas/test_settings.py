import dataclasses
import json

import pytest

from hadas_jax.methods import Settings
from hw_models.catalogue import chosen_device


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
        ("per_exit_thresholds", 1, "--per-exit-thresholds: expected true or false, got 1"),
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
        ({"sed": 3}, "x: unknown setting 'sed': expected seed, or one of the others: dataset, data_dir"),
        ({"learning-rate": 0.1}, "x: unknown setting 'learning-rate': expected learning_rate, or one"),
        ({"qqq": 0.1}, "x: unknown setting 'qqq': expected some of dataset, data_dir"),
        ({"seed": "3"}, "x: --seed: expected a whole number of at least 0, got '3', which is text: leave out"),
        ({"seed": "three"}, "x: --seed: expected a whole number of at least 0, got 'three'"),
    ],
)
def test_a_wrong_mapping_names_its_source(values, expected):
    with pytest.raises(ValueError, match="expected") as caught:
        Settings.from_mapping(values, source="x")
    assert str(caught.value).startswith(expected)


def test_the_device_is_loaded_in_its_mode_with_the_clocks_and_the_format_asked_for():
    settings = Settings(device="tx2-gpu", power_mode="maxq", core_mhz=(114.75, 854.25), number_format="fp16")
    device = chosen_device(settings)
    assert [round(float(hz) / 1e6, 2) for hz in device.core_hz] == [114.75, 854.25]
    assert float(device.memory_hz.max()) == pytest.approx(1331.2e6)
    assert device.formats[0].name == "FP16"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "coral-edge-tpu", "number_format": "fp32"}, r"--number-format: .* coral-edge-tpu runs \(int8\)"),
        ({"device": "tx2-gpu", "power_mode": "turbo"}, "power mode of tx2-gpu: expected one of maxn, maxq, maxp"),
        ({"device": "x86-cpu", "power_mode": "turbo"}, "names no power modes, got 'turbo'"),
        ({"device": "tx2-gpu", "power_mode": "maxq", "core_mhz": (1300.5,)}, "core_hz: expected settings of tx2-gpu"),
    ],
)
def test_what_a_device_does_not_have_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        chosen_device(Settings(**settings))


def test_clocks_come_back_from_a_file_as_they_went():
    settings = Settings(core_mhz=(114.75, 1377.0), power_mode="maxn")
    stored = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert Settings.from_mapping(stored, source="a file") == settings
    with pytest.raises(ValueError, match="--core-mhz: expected a number above 0, got -1"):
        Settings(core_mhz=(-1,))


def test_paths_are_made_absolute_and_names_are_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("my.yaml", "front.json"):
        (tmp_path / name).write_text("")
    settings = Settings(
        dataset="folder:images",
        data_dir="~/data",
        checkpoint="runs/x/supernet",
        device="my.yaml",
        space="digits",
        warm_start=("a0", "front.json"),
    ).absolute()
    assert settings.dataset == f"folder:{tmp_path}/images"
    assert settings.data_dir == f"{tmp_path}/home/data"
    assert settings.checkpoint == f"{tmp_path}/runs/x/supernet"
    assert (settings.device, settings.space) == (f"{tmp_path}/my.yaml", "digits")
    assert settings.warm_start == ("a0", f"{tmp_path}/front.json")
    assert settings.absolute() == settings
    assert Settings().absolute() == Settings()
