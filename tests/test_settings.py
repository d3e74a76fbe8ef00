import dataclasses
import json
import subprocess
import sys

import pytest

from hadas_jax.settings import (
    Constraints,
    DataSettings,
    DnasSettings,
    ExitsSettings,
    FineTuneSettings,
    OperatingSettings,
    RetrainSettings,
    SearchSettings,
    SupernetRunSettings,
    TrainSettings,
)
from hw_models.catalogue import chosen_device

KINDS = (SearchSettings, TrainSettings, DnasSettings, RetrainSettings, FineTuneSettings, ExitsSettings)
COUNT, NATURAL = "expected a whole number of at least 1, got", "expected a whole number of at least 0, got"
POSITIVE, NON_NEGATIVE = "expected a number above 0, got", "expected a number of at least 0, got"
RATE, SHARE = (
    "expected a number of at least 0 and below 1, got",
    "expected a number of at least 0 and of at most 1, got",
)
TEXT, SWITCH = "expected text, got", "expected true or false, got"
AUGMENTATION = "expected one of none, affine, crop-flip, randaugment, got"
DTYPE = "expected one of float32, bfloat16, got"
DEVICE = "expected with a device as `hardware`, got it with generic; budgets of accelerators are `min_fps`"
CLOCKS = "expected a list of values, each a number above 0, got"

DATA = [
    ("dataset", 3, f"{TEXT} 3"),
    ("data_dir", 3, f"{TEXT} 3"),
    ("image_size", 0, f"{COUNT} 0"),
    ("split_seed", -1, "expected a whole number of at least 0 and of at most 4294967293, got -1"),
    ("skip_unreadable", 1, f"{SWITCH} 1"),
    ("evaluation_images", 0, f"{COUNT} 0"),
]
SUPERNET = [
    *DATA,
    ("space", 3, f"{TEXT} 3"),
    ("resolutions", 192, "expected a list of values, each a whole number of at least 1, got 192"),
    ("checkpoint", True, f"{TEXT} True"),
    ("epochs", -1, f"{NATURAL} -1"),
    ("exit_epochs", True, f"{COUNT} True"),
    ("batch", 1.5, f"{COUNT} 1.5"),
    ("learning_rate", 0, f"{POSITIVE} 0"),
    ("exit_learning_rate", float("nan"), f"{POSITIVE} nan"),
    ("weight_decay", -1e-5, f"{NON_NEGATIVE} -1e-05"),
    ("sampled", 257, "expected a whole number of at least 0 and of at most 256, got 257"),
    ("sampling", "luck", "expected one of uniform, bestup, got 'luck'"),
    ("distillation", "luck", "expected one of kl, alpha, got 'luck'"),
    ("label_smoothing", 1, f"{RATE} 1"),
    ("dropout", 1.0, f"{RATE} 1.0"),
    ("drop_connect", -0.1, f"{RATE} -0.1"),
    ("augmentation", "luck", f"{AUGMENTATION} 'luck'"),
    ("dtype", "float16", f"{DTYPE} 'float16'"),
    ("remat", 1, f"{SWITCH} 1"),
    ("cut", True, "expected with `remat`, which keeps its memory in bounds, got it alone"),
    ("data_parallel", "yes", f"{SWITCH} 'yes'"),
    ("debug", 0, f"{SWITCH} 0"),
    ("stats_batches", 0, f"{COUNT} 0"),
    ("eval_batch", "3", f"{COUNT} '3', which is text: leave out its quotes"),
    ("group", -1, f"{COUNT} -1"),
    ("seed", -1, f"{NATURAL} -1"),
]
OPERATING = [
    ("number_format", 3, f"{TEXT} 3"),
    ("power_mode", 3, f"{TEXT} 3"),
    ("core_mhz", 3, f"{CLOCKS} 3"),
    ("memory_mhz", (0,), f"{POSITIVE} 0"),
    ("host_mhz", (1.0, -1.0), f"{POSITIVE} -1.0"),
]
CONSTRAINTS_AND_DEPLOYMENT = [
    ("max_latency_ms", 0, f"{POSITIVE} 0"),
    ("max_p99_latency_ms", 0, f"{POSITIVE} 0"),
    ("max_energy_mj", 0.0, f"{POSITIVE} 0.0"),
    ("min_accuracy", 97, f"{SHARE} 97"),
    ("max_params", 0.5, f"{COUNT} 0.5"),
    ("max_memory_mb", 0, f"{POSITIVE} 0"),
    ("max_flash_mb", -1, f"{POSITIVE} -1"),
    ("policy", "luck", "expected one of confidence, entropy, learned, got 'luck'"),
    ("per_exit_thresholds", 1, f"{SWITCH} 1"),
    ("front_size", 0, f"{COUNT} 0"),
    ("accuracy_tolerance", -1, f"{SHARE} -1"),
]
SEARCH = [
    *SUPERNET,
    ("device", None, f"{TEXT} None"),
    *OPERATING,
    ("engine", "luck", "expected one of nested, flat, got 'luck'"),
    ("population", 0, f"{COUNT} 0"),
    ("candidates", 0, f"{COUNT} 0"),
    ("generations", 1.0, f"{COUNT} 1.0"),
    ("elite_ratio", 1.5, "expected a number above 0 and of at most 1, got 1.5"),
    ("strategy", 3, f"{TEXT} 3"),
    ("inner", "luck", "expected one of auto, exact, evolved, got 'luck'"),
    ("merit", "luck", "expected one of hypervolume, score, got 'luck'"),
    ("gamma", float("inf"), f"{NON_NEGATIVE} inf"),
    ("surrogate", 1, f"{SWITCH} 1"),
    ("number_formats", ("fp8",), "expected one of fp32, fp16, int8, got 'fp8'"),
    ("gradient_seeds", 257, "expected a whole number of at least 0 and of at most 256, got 257"),
    ("warm_start", "a0", "expected a list of values, each text, got 'a0'"),
    ("resume_from", 3, f"{TEXT} 3"),
    *CONSTRAINTS_AND_DEPLOYMENT,
    ("outcomes", 3, f"{TEXT} 3"),
]
DNAS = [
    *DATA,
    ("hardware", None, f"{TEXT} None"),
    ("fpga", 4, f"{TEXT} 4"),
    ("predictor", 4, f"{TEXT} 4"),
    ("predictor_kind", "luck", "expected one of mlp, embedding, lookup, got 'luck'"),
    ("predictor_samples", 0, f"{COUNT} 0"),
    ("number_format", "int8", DEVICE),
    ("power_mode", "maxn", DEVICE),
    *OPERATING[2:],
    ("search_clocks", True, DEVICE),
    ("minimise", "energy", "expected latency for a generic accelerator, got 'energy'"),
    ("weight", -0.1, f"{NON_NEGATIVE} -0.1"),
    ("form", "inverse", "expected one of log, relative, got 'inverse'"),
    ("min_fps", 0, f"{POSITIVE} 0"),
    ("max_latency_ms", 3.0, DEVICE),
    ("max_energy_mj", 3.0, DEVICE),
    ("budget_ascent", 0, f"{POSITIVE} 0"),
    ("channels", 1, "expected a whole number of at least 2, got 1"),
    ("cells", 2, "expected a whole number of at least 3, got 2"),
    ("priced", "luck", "expected one of data, e2e-perf, got 'luck'"),
    ("order", "third", "expected one of first, second, got 'third'"),
    ("relaxation", "luck", "expected one of softmax, gumbel, got 'luck'"),
    ("temperature", (1.0,), "expected a list of 2 values, each a number above 0, got (1.0,)"),
    ("epochs", 0, f"{COUNT} 0"),
    ("batch", 1.5, f"{COUNT} 1.5"),
    ("learning_rate", 0, f"{POSITIVE} 0"),
    ("weight_decay", -1, f"{NON_NEGATIVE} -1"),
    ("alpha_learning_rate", 0, f"{POSITIVE} 0"),
    ("alpha_weight_decay", -1, f"{NON_NEGATIVE} -1"),
    ("augmentation", "luck", f"{AUGMENTATION} 'luck'"),
    ("dtype", "float16", f"{DTYPE} 'float16'"),
    ("remat", 1, f"{SWITCH} 1"),
    ("seed", -1, f"{NATURAL} -1"),
]
RETRAIN = [
    *DATA,
    ("genotype", 3, f"{TEXT} 3"),
    ("style", "mobile", "expected one of cifar, imagenet, got 'mobile'"),
    ("channels", 1, "expected a whole number of at least 2, got 1"),
    ("cells", 0, f"{COUNT} 0"),
    ("epochs", 0, f"{COUNT} 0"),
    ("batch", 0, f"{COUNT} 0"),
    ("learning_rate", 0, f"{POSITIVE} 0"),
    ("weight_decay", -1, f"{NON_NEGATIVE} -1"),
    ("auxiliary_weight", -1, f"{NON_NEGATIVE} -1"),
    ("drop_path", 1, f"{RATE} 1"),
    ("cutout", -1, f"{NATURAL} -1"),
    ("augmentation", "mixup", f"{AUGMENTATION} 'mixup'"),
    ("label_smoothing", 1, f"{RATE} 1"),
    ("dtype", "float16", f"{DTYPE} 'float16'"),
    ("remat", 1, f"{SWITCH} 1"),
    ("data_parallel", 1, f"{SWITCH} 1"),
    ("stats_batches", 0, f"{COUNT} 0"),
    ("eval_batch", 0, f"{COUNT} 0"),
    ("seed", -1, f"{NATURAL} -1"),
]
FINE_TUNE = [
    ("network", 3, f"{TEXT} 3"),
    ("dataset", 3, f"{TEXT} 3"),
    ("data_dir", 3, f"{TEXT} 3"),
    ("epochs", 0, f"{COUNT} 0"),
    ("batch", 0, f"{COUNT} 0"),
    ("learning_rate", 0, f"{POSITIVE} 0"),
    ("weight_decay", -1, f"{NON_NEGATIVE} -1"),
    ("exit_weights", (-1,), f"{NON_NEGATIVE} -1"),
    ("label_smoothing", 1, f"{RATE} 1"),
    ("augmentation", "mixup", f"{AUGMENTATION} 'mixup'"),
    ("data_parallel", 1, f"{SWITCH} 1"),
    ("seed", -1, f"{NATURAL} -1"),
]
EXITS = [
    ("model", 3, f"{TEXT} 3"),
    ("mean", 0.5, "expected a list of values, each a number, got 0.5"),
    ("deviation", (0,), "expected a number above 0, got 0"),
    ("value_range", (1.0, 0.0), "expected a lower and a higher value, got 1 0"),
    ("layout", "chwn", "expected one of nchw, nhwc, got 'chwn'"),
    ("new_classifier", 1, f"{SWITCH} 1"),
    ("places", 14, "expected a whole number of at least 1 and of at most 13, got 14"),
    ("head_epochs", 0, f"{COUNT} 0"),
    ("memory_mb", 0, f"{POSITIVE} 0"),
    ("features_mb", -1, f"{POSITIVE} -1"),
    *DATA,
    ("device", None, f"{TEXT} None"),
    *OPERATING,
    *CONSTRAINTS_AND_DEPLOYMENT,
    ("seed", -1, f"{NATURAL} -1"),
]
WRONG = {
    SearchSettings: SEARCH,
    TrainSettings: [*SUPERNET, ("exits_for", 3, f"{TEXT} 3")],
    DnasSettings: DNAS,
    RetrainSettings: RETRAIN,
    FineTuneSettings: FINE_TUNE,
    ExitsSettings: EXITS,
}


@pytest.mark.parametrize(
    ("kind", "name", "value", "expected"),
    [pytest.param(kind, *case, id=f"{kind.__name__}-{case[0]}") for kind, cases in WRONG.items() for case in cases],
)
def test_a_setting_that_does_not_fit_is_named_in_one_line(kind, name, value, expected):
    with pytest.raises(ValueError, match="expected") as caught:
        kind.of(**{name: value})
    assert str(caught.value) == f"{name}: {expected}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_checked_and_has_a_name_of_its_own(kind):
    assert [name for name, _, _ in WRONG[kind]] == list(kind().flat())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"number_formats": ("int8", "int8")}, "number_formats: expected different formats, got int8 int8"),
        (
            {"number_formats": ("fp32", "int8"), "number_format": "int8"},
            "number_format and number_formats: expected one",
        ),
    ],
)
def test_formats_that_contradict_each_other_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        SearchSettings.of(**values)


def test_groups_are_checked_where_they_are_made():
    with pytest.raises(ValueError, match=r"^image_size: expected a whole number of at least 1, got 0$"):
        DataSettings(image_size=0)
    with pytest.raises(ValueError, match=r"^unknown setting 'sise': expected some of dataset, data_dir"):
        DataSettings(sise=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        DataSettings().image_size = 3


def test_a_supernet_is_trained_unless_a_checkpoint_has_one():
    with pytest.raises(ValueError, match=r"^epochs: expected a whole number of at least 1 without `checkpoint`, got 0"):
        TrainSettings.of(epochs=0)
    assert TrainSettings.of(checkpoint="net", epochs=0).training.epochs == 0


def test_the_division_of_images_belongs_to_a_checkpoint():
    with pytest.raises(ValueError, match=r"^split_seed and checkpoint: expected one of them, got both"):
        TrainSettings.of(checkpoint="runs/x/supernet", split_seed=1)


def test_settings_can_be_written_flat_or_in_groups():
    flat = SearchSettings.of(dataset="npz:a.npz", generations=3, max_latency_ms=2, seed=4)
    assert (flat.data, flat.constraints) == (DataSettings(dataset="npz:a.npz"), Constraints(max_latency_ms=2.0))
    grouped = dataclasses.replace(SearchSettings(), data=flat.data, search=flat.search, seed=4)
    assert grouped.replace(max_latency_ms=2.0) == flat
    assert SearchSettings.of(**flat.flat()) == flat


def test_both_commands_train_alike_by_default():
    search, train = SearchSettings(), TrainSettings()
    shared = dataclasses.fields(SupernetRunSettings)
    assert all(getattr(search, field.name) == getattr(train, field.name) for field in shared)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_come_back_from_a_file_as_they_went(kind):
    stored = json.loads(json.dumps(kind(seed=3).flat()))
    assert kind.from_mapping(stored, source="a file") == kind(seed=3)
    assert kind.from_mapping({"seed": 3}, source="a file") == kind(seed=3)


def test_lists_of_a_file_become_settings_and_a_wrong_value_names_the_file():
    found = DnasSettings.from_mapping({"core_mhz": [1300.5], "temperature": [4, 0.2]}, source="x")
    assert found == DnasSettings.of(core_mhz=(1300.5,), temperature=(4.0, 0.2))
    with pytest.raises(ValueError, match=r"^mine\.yaml: dropout: expected a number"):
        TrainSettings.from_mapping({"dropout": 2}, source="mine.yaml")
    with pytest.raises(ValueError, match=r"^mine\.yaml: unknown setting 'population'"):
        TrainSettings.from_mapping({"population": 2}, source="mine.yaml")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1], "x: expected settings by name, got list"),
        (None, "x: expected settings by name, got NoneType"),
        ({"sed": 3}, "x: unknown setting 'sed': expected seed, or one of the others: dataset, data_dir"),
        ({"learning-rate": 0.1}, "x: unknown setting 'learning-rate': expected learning_rate, or one"),
        ({"qqq": 0.1}, "x: unknown setting 'qqq': expected some of dataset, data_dir"),
        ({3: 0.1}, "x: unknown setting '3': expected some of dataset, data_dir"),
        ({"seed": "3"}, "x: seed: expected a whole number of at least 0, got '3', which is text: leave out"),
        ({"seed": "three"}, "x: seed: expected a whole number of at least 0, got 'three'"),
    ],
)
def test_a_wrong_mapping_names_its_source(values, expected):
    with pytest.raises(ValueError, match="expected") as caught:
        SearchSettings.from_mapping(values, source="x")
    assert str(caught.value).startswith(expected)


def test_the_device_is_loaded_in_its_mode_with_the_clocks_and_the_format_asked_for():
    operating = OperatingSettings(power_mode="maxq", core_mhz=(114.75, 854.25), number_format="fp16")
    device = chosen_device("tx2-gpu", operating)
    assert [round(float(hz) / 1e6, 2) for hz in device.core_hz] == [114.75, 854.25]
    assert float(device.memory_hz.max()) == pytest.approx(1331.2e6)
    assert device.formats[0].name == "FP16"


@pytest.mark.parametrize(
    ("device", "operating", "message"),
    [
        ("coral-edge-tpu", {"number_format": "fp32"}, r"number_format: .* coral-edge-tpu runs \(int8\)"),
        ("tx2-gpu", {"power_mode": "turbo"}, "power mode of tx2-gpu: expected one of maxn, maxq, maxp"),
        ("x86-cpu", {"power_mode": "turbo"}, "names no power modes, got 'turbo'"),
        ("tx2-gpu", {"power_mode": "maxq", "core_mhz": (1300.5,)}, "core_hz: expected settings of tx2-gpu"),
    ],
)
def test_what_a_device_does_not_have_is_named(device, operating, message):
    with pytest.raises(ValueError, match=message):
        chosen_device(device, OperatingSettings(**operating))


def test_paths_are_made_absolute_and_names_are_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("my.yaml", "front.json"):
        (tmp_path / name).write_text("")
    settings = SearchSettings.of(
        dataset="folder:images",
        data_dir="~/data",
        checkpoint="runs/x/supernet",
        device="my.yaml",
        space="digits",
        warm_start=("a0", "front.json"),
    ).absolute()
    assert settings.data == DataSettings(dataset=f"folder:{tmp_path}/images", data_dir=f"{tmp_path}/home/data")
    assert settings.supernet.checkpoint == f"{tmp_path}/runs/x/supernet"
    assert (settings.device, settings.supernet.space) == (f"{tmp_path}/my.yaml", "digits")
    assert settings.search.warm_start == ("a0", f"{tmp_path}/front.json")
    assert settings.absolute() == settings
    assert SearchSettings().absolute() == SearchSettings()


def test_settings_are_imported_without_jax():
    code = "import hadas_jax.settings, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
