"""Tests of `hadas import-checkpoint`: what a user sees, and one line for each mistake."""

import io
import sys

import jax
import numpy as np
import pytest
from failing_commands import fails
from original_checkpoint import draw_exits, write_original
from rich.console import Console

from hadas_jax import spaces
from hadas_jax.cli import main
from hadas_jax.commands import import_checkpoint
from hadas_jax.supernet.checkpoint import load_supernet


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, small_space):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")
    known = spaces.load_space
    monkeypatch.setattr(spaces, "load_space", lambda name: small_space if name == "small" else known(name))


@pytest.fixture
def arrays(small_space, small_network):
    return write_original(small_space, *small_network)


@pytest.fixture
def backbone(small_space):
    """With blocks 0 at position 0 and 1, 2 at positions 2, 3."""
    backbone = small_space.largest()
    return backbone.replace(depth=backbone.depth - 1)


def write(name, arrays):
    np.savez(name, **{f"module.{entry}": array for entry, array in arrays.items()})
    return name


def text_of(*arguments, **settings):
    """Runs the import; returns what it prints and what it returns."""
    console = Console(file=io.StringIO(), width=100)
    found = import_checkpoint(*arguments, normalisation="none", console=console, **settings)
    return console.file.getvalue(), found


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


def test_the_command_writes_a_supernet_that_can_be_loaded(arrays, small_space, small_network, capsys):
    write("net.npz", arrays)
    main(["import-checkpoint", "net.npz", "-o", "net", "--space", "small", "--normalisation", "none"])
    printed = capsys.readouterr().out
    assert f"Read: net.npz, {len(arrays)} entries; " in printed
    assert "Supernet: space small, 3 classes" in printed
    assert "Fresh, to be trained: 4 of 4 exit heads" in printed
    assert "Surplus" not in printed
    assert printed.endswith("Written: net\n")
    found = load_supernet("net")
    assert found.space == small_space
    assert same(found.params.backbone, small_network[0].backbone)
    assert (found.trained_exits, found.normalisation, found.class_names) == ((), None, None)
    assert found.source == "PyTorch checkpoint net.npz"
    assert len(found.details["sha256"]["checkpoint"]) == 64


def test_another_number_of_classes_and_surplus_entries_are_told(arrays, small_space):
    surplus = {f"other.{i}": np.zeros(1) for i in range(12)}
    printed, found = text_of(write("net.npz", arrays | surplus), "net", space=small_space, classes=7)
    assert "classifier for 7 classes (the checkpoint has one for 3)" in printed
    assert "Surplus, left: other.0, other.1," in printed
    assert "other.9 and 2 more" in printed
    assert found.space.classes == load_supernet("net").space.classes == 7
    assert load_supernet("net").details["entries"]["surplus"] == list(surplus)
    assert not load_supernet("net").has_classifier


def test_exits_come_from_the_checkpoint_or_from_another(arrays, small_space, backbone):
    heads = draw_exits(small_space, (24, 24))
    both = write("both.npz", arrays | heads)
    printed, together = text_of(both, "a", space=small_space, exits_of=backbone)
    assert "Exit heads: 2 of 4, after positions 2, 3" in printed
    assert "Note: the learned confidence after the final classifier is left" in printed
    assert load_supernet("a").trained_exits == (2, 3)
    assert load_supernet("a").exits_of == "a backbone"

    others = arrays | draw_exits(small_space, (24,))
    write("net.npz", others)
    write("exits.npz", heads)
    printed, apart = text_of("net.npz", "b", space=small_space, exits="exits.npz", exits_of=backbone)
    assert same(apart.params, together.params)
    assert apart.trained_exits == (2, 3)
    assert "Note: the learned confidence after the final classifier is left" in printed


def test_what_lies_beside_the_weights_is_told_and_can_be_chosen(arrays, small_space, small_network):
    averaged = {
        f"model_ema.{name}": array + 1 if array.dtype == np.float32 else array for name, array in arrays.items()
    }
    plain = {f"model.module.{name}": array for name, array in arrays.items()}
    np.savez("net.npz", **averaged, **plain)
    printed, found = text_of("net.npz", "net", space=small_space)
    assert f"Read: net.npz, {len(arrays)} entries" in printed
    assert "Note: taken: the entries under model.module" in printed
    assert f"Note: not taken: model_ema ({len(arrays)} entries)" in printed
    assert same(found.params.backbone, small_network[0].backbone)
    _, found = text_of("net.npz", "ema", space=small_space, entry="model_ema")
    assert same(found.params.backbone["stem"]["bn"]["bias"], small_network[0].backbone["stem"]["bn"]["bias"] + 1)


def test_a_supernet_is_replaced_only_when_asked(arrays, small_space):
    write("net.npz", arrays)
    text_of("net.npz", "net", space=small_space)
    with pytest.raises(ValueError, match=r"net holds supernet\.json: `overwrite` replaces it"):
        text_of("net.npz", "net", space=small_space, classes=5)
    assert load_supernet("net").space.classes == 3
    text_of("net.npz", "net", space=small_space, classes=5, overwrite=True)
    assert load_supernet("net").space.classes == 5


def test_fresh_parts_depend_on_the_seed_alone(arrays, small_space):
    write("net.npz", arrays)
    heads = [
        text_of("net.npz", f"net{i}", space=small_space, seed=seed)[1].params.heads for i, seed in enumerate((1, 1, 2))
    ]
    assert same(heads[0], heads[1])
    assert not same(heads[0], heads[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("none.pth.tar -o out", "checkpoint none.pth.tar: expected a file, got none"),
        (". -o out", "checkpoint .: expected a file, got a directory"),
        ("net.npz -o net.npz", "net.npz: expected a directory, got a file"),
        ("net.npz -o net.npz/out", "net.npz/out: expected a place to write to"),
        ("net.npz -o full", "full: expected none, an empty directory or one with supernet.json, got one with mine.txt"),
        ("net.npz -o full --overwrite", "got one with mine.txt"),
        ("net.npz", "--output"),
        ("text.npz -o out", "got a text file of 9 bytes beginning with 'no arrays'"),
        ("net.npz -o out --space small --entry ema", "entry: expected one of module, got 'ema'"),
        ("net.npz -o out --space outer", "unknown space 'outer': expected one of"),
        ("net.npz -o out --space digits", "space digits: expected one with resolutions of its own"),
        ("net.npz -o out --space attentivenas", "first_conv.conv.conv.weight: expected shape (24, 3, 3, 3), got (16"),
        ("net.npz -o out --space small", "normalisation: expected means and positive deviations of 1 channels"),
        ("net.npz -o out --space small --classes 1", "classes: expected at least 2, got 1"),
        ("net.npz -o out --space small --classes many", "--classes"),
        ("net.npz -o out --space small --normalisation luck", "--normalisation"),
        ("net.npz -o out --space small --exits-of a9", "unknown backbone 'a9': expected one of a0"),
        ("net.npz -o out --space small --exits-of a0", "--exits-of: expected a backbone of the space small"),
        ("net.npz -o out --space small --exit-blocks 1 2", "--exit-blocks: expected exits_of beside them"),
        ("net.npz -o out --space small --exits net.npz", "--exits: expected --exits-of with the backbone"),
        (
            "net.npz -o out --space small --exits net.npz --exits-of a0",
            "exits: expected a checkpoint with exit heads",
        ),
    ],
)
def test_each_mistake_is_one_line_and_nothing_is_written(arguments, message, arrays, tmp_path, capsys):
    write("net.npz", arrays)
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert message in fails(f"import-checkpoint {arguments}", capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_pytorch_a_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    (tmp_path / "net.pth.tar").write_bytes(b"\x80\x02any")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'hadas-jax[torch]'" in fails("import-checkpoint net.pth.tar -o out", capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_pytorch_file_gives_what_its_arrays_give(arrays, small_space):
    torch = pytest.importorskip("torch")
    write("net.npz", arrays)
    tensors = {f"module.{name}": torch.from_numpy(array.copy()) for name, array in arrays.items()}
    torch.save({"epoch": 1, "state_dict": tensors}, "net.pth.tar", _use_new_zipfile_serialization=False)
    found = [text_of(name, f"of-{name}", space=small_space)[1].params for name in ("net.npz", "net.pth.tar")]
    assert same(*found)
