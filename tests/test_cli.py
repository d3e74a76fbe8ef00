import functools
import json
import os
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
import yaml
from failing_commands import fails

import hw_models
from hadas_jax import cli
from hadas_jax.backend import LostProcessError
from hadas_jax.cli import main
from hadas_jax.commands import run as commands
from hadas_jax.commands import search
from hadas_jax.settings import SearchSettings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")


@pytest.fixture
def calls(monkeypatch):
    """What the command would have called."""
    found = []

    @functools.wraps(search)
    def called(settings, **kwargs):
        found.append((settings, kwargs))

    monkeypatch.setitem(cli.COMMANDS, "search", called)
    return found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("serch", "unknown command 'serch': expected search"),
        ("search --population 0", "--population: expected a whole number of at least 1, got 0"),
        ("search --population many", "--population: invalid literal"),
        ("search --popuation 3", "--popuation, 3; perhaps --population is meant; see hadas search --help"),
        ("search --dataset moon", "unknown dataset 'moon': expected one of digits, cifar10, cifar100"),
        ("search --device toaster", "expected one of agx-orin-gpu, agx-xavier-cpu, agx-xavier-gpu"),
        ("search --space outer", "unknown space 'outer': expected one of digits, small-images, attentivenas"),
        ("search --checkpoint none", "none: expected a directory with a trained supernet, got none"),
        ("search --resolutions 16", "--resolutions: expected some of 8 as space digits has, got 16"),
        ("search --dataset folder:none", "none"),
        ("search --dataset cifar10 --data-dir .", "hadas data prepare cifar10"),
        ("train --epochs many", "--epochs: invalid literal"),
        ("train --dropout 1", "--dropout: expected a number of at least 0 and below 1, got 1"),
        ("train --distillation luck", "--distillation: expected one of kl, alpha, got 'luck'"),
        ("train --cut", "--cut: expected with --remat"),
        ("train --exits-for a0", "--exits-for a0: expected a backbone of the space digits"),
        ("train --resume --workdir none", "expected a run to resume, got none"),
        ("data prepare moon", "dataset 'moon': expected one of cifar10"),
        ("data show", "unknown command 'data show': expected data prepare"),
        ("search --dataset npz:none.npz", "none.npz: expected an npz file, got none at this path"),
        ("search --device tx2-gpu --power-mode turbo", "power mode of tx2-gpu: expected one of maxn, maxq, maxp"),
        ("search --device coral-edge-tpu --number-format fp32", "--number-format: expected one that coral-edge-tpu"),
        ("search --core-mhz 1", "core_hz: expected settings of agx-xavier-gpu"),
        ("search --policy luck", "--policy: expected one of confidence, entropy, learned"),
        ("search --strategy Luck", "--strategy: expected one of NSGA2, NSGA3, RandomSearch, "),
        ("search --strategy CMA_ES --population 31", "--strategy CMA_ES, --population 31: "),
        ("search --strategy CMA_ES --surrogate", "--surrogate: expected a strategy that learns from any backbone"),
        ("search --inner lucky", "--inner: expected one of auto, exact, evolved, got 'lucky'"),
        ("search --merit luck", "--merit: expected one of hypervolume, score, got 'luck'"),
        ("search --warm-start a9", "--warm-start: expected some of a0, a1"),
        ("search --min-accuracy 95", "--min-accuracy: expected a number of at least 0 and of at most 1, got 95"),
        ("search --max-latency-ms 0", "--max-latency-ms: expected a number above 0"),
        ("search --process-id 1", "--coordinator: expected with the other two"),
        ("search --process-id one", "error: --process-id: no type matching"),
        ("dnas sample -o s.npz --seed 99999999999999999999", "whole numbers of at most 63 bits"),
        ("bench --populations 1", "--populations: expected sizes of at least 2"),
        ("bench -o nowhere/b.json", "nowhere/b.json: expected a folder that exists"),
        ("search --resume", "--resume: expected --workdir"),
        ("search --resume --workdir none", "expected a run to resume, got none"),
        ("search --resume --overwrite --workdir none", "expected a run to resume"),
        ("search --config none.yaml", "--config none.yaml: expected a YAML or JSON file"),
    ],
)
def test_a_mistake_ends_with_one_line_and_exit_code_2(arguments, message, capsys, tmp_path):
    assert message in fails(arguments.split(), capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((8, 4, 4, 1), np.uint8), np.zeros(7, int), "labels: expected one for each of 8 images"),
        (np.zeros((8, 4, 4, 1), np.uint8), np.arange(8) % 2 - 1, "labels: expected 0 .. K - 1 without gaps"),
        (np.full((8, 4, 4, 1), np.nan, np.float32), np.arange(8) % 2, "images: expected finite values"),
    ],
)
def test_arrays_that_do_not_fit_are_named(images, labels, message, capsys, tmp_path):
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    assert message in fails(["search", "--dataset", "npz:data.npz"], capsys)


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (
            PermissionError(13, "Permission denied", "runs/locked"),
            "hadas: error: runs/locked: expected to be read or written, got: Permission denied",
            2,
        ),
        (OverflowError("int too big to convert"), "hadas: error: expected whole numbers of at most 63 bits", 2),
        (KeyboardInterrupt(), "hadas: interrupted; search, train and devices profile go on with --resume", 130),
        (LostProcessError("process 1 is gone"), "hadas: process 1 is gone; start all processes again with", 1),
    ],
)
def test_what_ends_a_command_from_without_is_one_line(error, message, code, monkeypatch, capsys):
    @functools.wraps(search)
    def ended(*_, **__):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "search", ended)
    with pytest.raises(SystemExit) as left:
        main(["search"])
    assert left.value.code == code
    assert capsys.readouterr().err.strip().startswith(message)


def test_an_error_of_the_program_itself_is_not_hidden(monkeypatch):
    @functools.wraps(search)
    def broken(*_, **__):
        raise RuntimeError("an invariant")

    monkeypatch.setitem(cli.COMMANDS, "search", broken)
    with pytest.raises(RuntimeError, match="an invariant"):
        main(["search"])


def test_a_strategy_that_is_no_text_is_named(capsys, tmp_path):
    (tmp_path / "c.yaml").write_text("strategy: {name: NSGA2}")
    assert "--strategy: expected text, got {'name': 'NSGA2'}" in fails(["search", "--config", "c.yaml"], capsys)


@pytest.mark.parametrize("field", ["missing", "negative", "text"])
def test_a_wrong_device_file_names_file_and_field(field, capsys, tmp_path):
    content = hw_models.read_device_file("agx-xavier-gpu").model_dump(exclude_none=True)
    dense = content["latency"]["macs_per_cycle"]["dense"]
    if field == "missing":
        del dense["value"]
    else:
        dense["value"] = {"negative": -465, "text": "fast"}[field]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    error = fails(["search", "--device", "mine.yaml"], capsys)
    assert "mine.yaml" in error
    assert "latency.macs_per_cycle.dense" in error


def test_a_work_directory_with_a_run_is_kept(capsys, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "--resume continues it, --overwrite replaces it" in fails(["search", "--workdir", "run"], capsys)
    assert (tmp_path / "run" / "config.json").read_text() == "{}"


def test_flags_become_settings(calls):
    main(["search", "--dataset", "npz:a.npz", "--population", "8", "--seed", "3", "--workdir", "w", "--overwrite"])
    settings, rest = calls[0]
    assert settings == SearchSettings.of(dataset="npz:a.npz", population=8, seed=3)
    assert str(rest["workdir"]) == "w"
    assert rest["overwrite"]
    assert not rest["resume"]


def test_flags_win_over_a_config_file(calls, tmp_path):
    (tmp_path / "mine.yaml").write_text("population: 8\nseed: 5\n")
    main(["search", "--config", "mine.yaml", "--seed", "6"])
    assert calls[0][0] == SearchSettings.of(population=8, seed=6)


def test_a_resumed_run_keeps_its_settings(calls, tmp_path):
    (tmp_path / "run").mkdir()
    config = {"form": "hadas_jax.search/1", "settings": {"population": 8}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    main(["search", "--resume", "--workdir", "run"])
    assert calls[0][0] == SearchSettings.of(population=8)
    assert calls[0][1]["resume"]


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0), (["search", "--help"], 0)])
def test_help_tells_the_commands(arguments, code, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == code
    assert "search" in capsys.readouterr().out


def test_a_group_alone_lists_its_commands(capsys):
    for arguments, code in ((["dnas"], 2), (["dnas", "--help"], 0)):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        printed = capsys.readouterr().out
        assert stop.value.code == code
        assert "hadas dnas price" in printed
        assert "hadas devices" not in printed


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_a_command_explains_every_flag_and_names_flags_as_they_are_given(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*name.split(), "--help"])
    assert capsys.readouterr().out.startswith(f"usage: hadas {name} ")
    command = cli.Command(name, cli.COMMANDS[name])
    for flag in command.flags:
        assert flag.help.endswith("."), flag
        assert flag.help[0].isupper() or flag.help.split()[0].strip(",:") in (*EXAMPLES, "by"), flag


EXAMPLES = ("digits", "cifar10", "ku115", "stablehlo", "mlp", "HOST:PORT")


@pytest.mark.parametrize("words", ["--help", "search --help", "runs", "devices"])
def test_help_and_the_list_of_runs_import_no_jax(words):
    code = f"""
import sys
from hadas_jax.cli import main
try:
    main({words.split()!r})
finally:
    print("jax" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stderr == "False\n", done.stderr


def test_a_reader_that_has_seen_enough_is_no_mistake():
    """As `hadas search --help | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "hadas_jax", "search", "--help"], stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("shell", cli.SHELLS)
def test_a_script_completes_commands_and_flags(shell, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("fit-predictor", "--max-latency-ms", "operating-points"))
    assert "--print-completion: expected one of bash" in fails("--print-completion sh", capsys)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("batch: expected 1", "--batch: expected 1"),
        ("resume and overwrite: expected one", "--resume and --overwrite: expected one"),
        ("config c.yaml: batch: expected 1", "--config c.yaml: --batch: expected 1"),
        ("checkpoint my net: expected a directory", "--checkpoint my net: expected a directory"),
        (
            "my.npz: expected a new file; `overwrite` replaces it",
            "my.npz: expected a new file; --overwrite replaces it",
        ),
        ("max_latency_ms: expected more than `gamma`", "--max-latency-ms: expected more than --gamma"),
        ("a batch of images: expected 3", "a batch of images: expected 3"),
        ("mismatch: batches differ", "mismatch: batches differ"),
    ],
)
def test_messages_of_the_library_name_flags(message, shown):
    assert cli.Command("search", search).in_flags(message) == shown


def test_a_flag_turns_off_what_a_config_file_turns_on(calls, tmp_path):
    (tmp_path / "mine.yaml").write_text("remat: true\nimage_size: 9\n")
    main(["search", "--config", "mine.yaml", "--no-remat", "--image-size", "None"])
    assert calls[0][0] == SearchSettings()


@pytest.mark.parametrize(
    ("dataset", "device", "ending"),
    [
        ("digits", "agx-xavier-gpu", "-digits-agx-xavier-gpu"),
        ("npz:/data/my set.npz", "boards/mine.yaml", "-my_set-mine"),
        ("npz:mine.npz", "my_device.yaml", "-mine-my_device"),
        ("folder:images", "dnas-my_device.yaml", "-images-dnas-my_device"),
    ],
)
def test_a_work_directory_is_named_after_time_data_and_device(dataset, device, ending):
    path = commands.default_workdir(dataset, device)
    assert path.parent.name == "runs"
    assert re.fullmatch(r"\d{8}-\d{6}" + re.escape(ending), path.name)


def test_the_package_runs_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hadas_jax", "serch"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("hadas_jax", run_name="__main__")
    assert "hadas: error: unknown command 'serch'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    ["learning_rate: 1e-1\nweight_decay: 1e-5\nepochs: 1\n",
     '{"learning_rate": 0.1, "weight_decay": 1E-5, "epochs": 1}',
     "\ufefflearning_rate: 1.0e-1\nweight_decay: .1e-4\nepochs: +1\n"],
)  # fmt: skip
def test_numbers_of_a_config_file_may_be_written_as_anywhere_else(content, calls, tmp_path):
    (tmp_path / "mine.yaml").write_text(content, encoding="utf-8")
    main(["search", "--config", "mine.yaml"])
    assert calls[0][0] == SearchSettings.of(learning_rate=0.1, weight_decay=1e-5, epochs=1)


def test_the_config_file_of_a_run_is_one_of_settings(calls, tmp_path):
    (tmp_path / "run").mkdir()
    content = {"form": "hadas_jax.search/1", "settings": {"population": 8, "resolutions": [8]}, "versions": {}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(content), encoding="utf-8")
    main(["search", "--config", "run/config.json", "--seed", "6"])
    assert calls[0][0] == SearchSettings.of(population=8, resolutions=(8,), seed=6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"form": "hadas_jax.train/1", "settings": {}}', "got 'hadas_jax.train/1', a run of hadas train"),
        (b'{"form": "hadas_jax.search/1", "settings": []}', "expected settings by name, got list"),
        (b'population: "8"', "--population: expected a whole number of at least 1, got '8', which is text"),
        (b"learning-rate: 0.1", "unknown setting 'learning-rate': expected learning_rate, or one of the others"),
        (b"seed: 1\nseed: 2", "a second time"),
        (b"seed: [1", "expected YAML, got"),
        ("seed: 1".encode("utf-16"), "expected a YAML or JSON file in UTF-8, got another encoding"),
        (b"", "expected settings by name, got NoneType"),
    ],
)  # fmt: skip
def test_a_config_file_that_does_not_fit_is_named(content, message, capsys, tmp_path):
    (tmp_path / "c.yaml").write_bytes(content)
    error = fails(["search", "--config", "c.yaml"], capsys)
    assert error.startswith("hadas: error: --config c.yaml: ")
    assert message in error
