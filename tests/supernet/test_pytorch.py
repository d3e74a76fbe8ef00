import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from original_checkpoint import draw_exits, recipe, write_original

from hadas_jax.spaces import DIGITS
from hadas_jax.supernet import initialise
from hadas_jax.supernet.pytorch import from_pytorch
from hadas_jax.supernet.pytorch_files import read_pytorch

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def arrays(small_space, small_network):
    """The state dict that the small network would have in the original."""
    return write_original(small_space, *small_network)


@pytest.fixture(scope="module")
def cut_short(small_space):
    """A backbone of the small space with one block in its first stage and two in its second."""
    return small_space.largest().replace(
        width=jnp.array([16, 16, 16, 24], jnp.int32), depth=jnp.array([1, 2], jnp.int32)
    )


def same(left, right):
    return jax.tree.structure(left) == jax.tree.structure(right) and all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


def test_a_written_state_dict_is_imported_as_what_was_written(small_space, small_network, arrays):
    params, stats = small_network
    found = from_pytorch(small_space, arrays, key=KEY)
    assert same(found.params.backbone, params.backbone)
    assert same(found.stats.backbone, stats.backbone)
    assert found.space == small_space
    assert found.surplus == found.trained_exits == found.notes == ()
    assert found.fresh == ("4 of 4 exit heads",)


def test_heads_that_no_checkpoint_holds_are_fresh(small_space, small_network, arrays):
    found = from_pytorch(small_space, arrays, key=KEY)
    assert same(found.params.heads, initialise(small_space, KEY).heads)
    assert jax.tree.map(jnp.shape, found.stats.heads) == jax.tree.map(jnp.shape, small_network[1].heads)
    for stage in found.stats.heads.values():
        assert (stage["bn"]["mean"] == 0).all()
        assert (stage["bn"]["var"] == 1).all()


def test_the_prefix_module_does_not_matter(small_space, arrays):
    prefixed = {f"module.{name}": array for name, array in arrays.items()}
    assert same(from_pytorch(small_space, prefixed, key=KEY).params, from_pytorch(small_space, arrays, key=KEY).params)


def test_entries_that_nothing_here_knows_are_named(small_space, arrays):
    found = from_pytorch(small_space, arrays | {"ema.decay": np.ones(1), "blocks.9.shortcut.w": np.ones(1)}, key=KEY)
    assert found.surplus == ("ema.decay", "blocks.9.shortcut.w")
    assert found.unused == len(arrays) - found.used


def test_missing_and_misshaped_entries_are_named_together(small_space, arrays):
    missing = [name for name in arrays if name.startswith("blocks.1.") and ".depth_conv.bn.bn." in name]
    missing = [name for name in missing if name.endswith((".weight", ".bias"))]
    broken = {name: array for name, array in arrays.items() if name not in missing}
    broken["first_conv.conv.conv.weight"] = np.zeros((16, 3, 3, 3), np.float32)
    with pytest.raises(ValueError, match="space small") as raised:
        from_pytorch(small_space, broken, key=KEY)
    message = str(raised.value)
    assert "2 of" in message
    assert all(name in message for name in missing)
    assert "first_conv.conv.conv.weight: expected shape (16, 1, 3, 3), got (16, 3, 3, 3)" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", [np.int8, np.int64, bool, np.complex64])
def test_weights_of_another_kind_than_floating_are_named(small_space, arrays, kind):
    name = "last_conv.feature_mix_layer.conv.conv.weight"
    with pytest.raises(ValueError, match=f"{name}: expected floating numbers, got {np.dtype(kind)}"):
        from_pytorch(small_space, arrays | {name: arrays[name].astype(kind)}, key=KEY)


@pytest.mark.parametrize("statistics", ["absent", "nan", "whole numbers"])
def test_running_statistics_may_be_absent_or_not_finite(small_space, small_network, arrays, statistics):
    other = {"nan": lambda array: np.full_like(array, np.nan), "whole numbers": lambda array: array.astype(int)}
    changed = {
        name: other[statistics](array) if ".running_" in name else array
        for name, array in arrays.items()
        if statistics != "absent" or not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }
    found = from_pytorch(small_space, changed, key=KEY)
    assert same(found.params.backbone, small_network[0].backbone)
    assert found.surplus == ()
    norms = sum(name.endswith("bn.bn.weight") for name in arrays)
    assert f"{2 * norms} running statistics of batch norms are absent or not finite" in found.notes[0]
    assert (found.stats.backbone["stem"]["bn"]["var"] == 1).all()


def test_of_many_missing_entries_the_first_are_named(small_space, arrays):
    with pytest.raises(ValueError, match=r"are missing: first_conv\.conv\.conv\.weight, .*, \.\.\.$"):
        from_pytorch(small_space, {"classifier.linear.linear.bias": np.zeros(3)}, key=KEY)
    with pytest.raises(ValueError, match=r"1 of .* are missing: classifier.linear.linear.weight"):
        from_pytorch(small_space, without(arrays, "classifier.linear.linear.weight"), key=KEY)


def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_entries_that_are_not_finite_are_named(small_space, arrays, value):
    name = "blocks.2.mobile_inverted_conv.point_linear.bn.bn.bias"
    broken = arrays[name].copy()
    broken[3] = value
    with pytest.raises(ValueError, match=f"{name}: expected finite numbers"):
        from_pytorch(small_space, arrays | {name: broken}, key=KEY)


def test_half_precision_and_double_entries_become_float32(small_space, arrays):
    halves = {name: array.astype(np.float16) if array.ndim else array for name, array in arrays.items()}
    doubles = {name: array.astype(np.float64) for name, array in arrays.items()}
    expected = from_pytorch(small_space, arrays, key=KEY).params
    assert same(from_pytorch(small_space, doubles, key=KEY).params, expected)
    for found, full in zip(
        jax.tree.leaves(from_pytorch(small_space, halves, key=KEY).params), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, full, rtol=1e-3, atol=1e-6)


def test_another_number_of_classes_gives_a_fresh_classifier_and_says_so(small_space, small_network, arrays):
    found = from_pytorch(small_space, arrays, key=KEY, classes=5)
    assert found.space.classes == 5
    assert found.params.backbone["tail"]["classifier"]["kernel"].shape == (24, 5)
    assert found.params.heads["stage0"]["classifier"]["kernel"].shape[-1] == 5
    assert found.fresh[0] == "classifier for 5 classes (the checkpoint has one for 3)"
    assert found.surplus == ()
    kept = [{**tree["tail"], "classifier": None} for tree in (found.params.backbone, small_network[0].backbone)]
    assert same(*kept)


def test_the_same_number_of_classes_keeps_the_classifier(small_space, small_network, arrays):
    found = from_pytorch(small_space, arrays, key=KEY, classes=3)
    assert same(found.params.backbone, small_network[0].backbone)


def test_a_checkpoint_without_classifier_needs_a_number_of_classes(small_space, arrays):
    headless = without(arrays, "classifier.linear.linear.weight", "classifier.linear.linear.bias")
    with pytest.raises(ValueError, match=r"2 of .* are missing: classifier"):
        from_pytorch(small_space, headless, key=KEY)
    found = from_pytorch(small_space, headless, key=KEY, classes=7)
    assert found.fresh[0] == "classifier for 7 classes (the checkpoint has no classifier)"


@pytest.mark.parametrize(("arguments", "message"), [({"classes": 1}, "classes: expected at least 2, got 1")])
def test_numbers_of_classes_that_cannot_be_are_refused(small_space, arrays, arguments, message):
    with pytest.raises(ValueError, match=message):
        from_pytorch(small_space, arrays, key=KEY, **arguments)


def test_a_space_without_resolutions_is_refused(arrays):
    with pytest.raises(ValueError, match="space digits: expected one with resolutions of its own"):
        from_pytorch(DIGITS, arrays, key=KEY)


def test_exits_of_one_backbone_take_the_places_of_its_blocks(small_space, arrays, cut_short):
    exits = draw_exits(small_space, (16, 16))
    found = from_pytorch(small_space, arrays | exits, key=KEY, exits_of=cut_short)
    # Of the backbone's blocks 0, 1, 2 the last two are the supernet's positions 2 and 3, the first of stage 1.
    assert found.trained_exits == (2, 3)
    heads, stats = found.params.heads["stage1"], found.stats.heads["stage1"]
    for number in (0, 1):
        kernel = exits[f"exits.{number}.conv.weight"]
        np.testing.assert_array_equal(heads["conv"][number][:, :, :16], kernel.transpose(2, 3, 1, 0))
        assert (heads["conv"][number][:, :, 16:] == 0).all()
        np.testing.assert_array_equal(heads["bn"]["scale"][number], exits[f"exits.{number}.bn_norm.weight"])
        np.testing.assert_array_equal(stats["bn"]["var"][number], exits[f"exits.{number}.bn_norm.running_var"])
        classifier = exits[f"exits.{number}.classifier.0.weight"]
        np.testing.assert_array_equal(heads["classifier"]["kernel"][number], classifier.T)
        confidence = exits[f"exits.{number}.confidence.0.bias"]
        np.testing.assert_array_equal(heads["confidence"]["bias"][number], confidence)


def test_heads_that_the_backbone_does_not_have_stay_fresh(small_space, arrays, cut_short):
    found = from_pytorch(small_space, arrays | draw_exits(small_space, (16, 16)), key=KEY, exits_of=cut_short)
    fresh = initialise(small_space, KEY).heads
    assert same(found.params.heads["stage0"], fresh["stage0"])
    last = jax.tree.map(lambda leaf: leaf[2], (found.params.heads["stage1"], fresh["stage1"]))
    assert same(*last)
    assert found.fresh == ("2 of 4 exit heads",)
    assert "confidence after the final classifier" in found.notes[0]
    assert found.surplus == ()


def test_exits_follow_the_blocks_that_are_named(small_space, arrays, cut_short):
    exits = draw_exits(small_space, (16,))
    found = from_pytorch(small_space, arrays | exits, key=KEY, exits_of=cut_short, exit_blocks=[2])
    assert found.trained_exits == (3,)
    genome = small_space.encode(cut_short)
    again = from_pytorch(small_space, arrays | exits, key=KEY, exits_of=genome, exit_blocks=[2])
    assert same(found.params, again.params)


def test_exits_without_a_backbone_are_left_and_the_notes_say_so(small_space, arrays):
    found = from_pytorch(small_space, arrays | draw_exits(small_space, (16, 16)), key=KEY)
    assert found.trained_exits == ()
    assert "exits.1.conv.weight" in found.surplus
    assert "2 exit heads of the checkpoint belong to one backbone" in found.notes[0]


@pytest.mark.parametrize(
    ("channels", "arguments", "message"),
    [
        ((), {}, "exits_of: expected a checkpoint with exit heads"),
        ((16,), {}, "exit_blocks: expected the blocks that the checkpoint's 1 exits follow, got none"),
        ((16,), {"exit_blocks": [1, 2]}, r"exit_blocks: expected 1 rising .* in 1 \.\. 2, .* got \[1, 2\]"),
        ((16, 16), {"exit_blocks": [2, 1]}, r"rising numbers of blocks .* got \[2, 1\]"),
        ((16, 16), {"exit_blocks": [2, 2]}, r"rising numbers of blocks .* got \[2, 2\]"),
        ((16,), {"exit_blocks": [0]}, r"rising numbers of blocks .* got \[0\]"),
        ((16,), {"exit_blocks": [3]}, r"rising numbers of blocks .* got \[3\]"),
        ((16, 24), {}, r"exits\.1\.conv\.weight: expected shape \(8, 16, 3, 3\), got \(8, 24, 3, 3\)"),
        ((16, 16), {"classes": 5}, "exits_of: expected the checkpoint's own 3 classes"),
        ((16, 16), {"exits_of": "a9"}, "unknown backbone 'a9'"),
        ((16, 16), {"exits_of": "a0"}, "exits_of: expected a backbone of the space small"),
        ((16, 16), {"exits_of": np.array([0, 99])}, "exits_of: expected a backbone of the space small"),
        ((16, 16), {"exits_of": None, "exit_blocks": [1, 2]}, "exit_blocks: expected exits_of beside them"),
    ],
)
def test_exits_that_do_not_fit_are_refused(small_space, arrays, cut_short, channels, arguments, message):
    exits = draw_exits(small_space, channels) if channels else {}
    with pytest.raises(ValueError, match=message):
        from_pytorch(small_space, arrays | exits, key=KEY, **({"exits_of": cut_short} | arguments))


def test_an_npz_file_of_the_arrays_is_read(tmp_path, arrays):
    np.savez(tmp_path / "weights.npz", **{f"module.{name}": array for name, array in arrays.items()})
    found = read_pytorch(tmp_path / "weights.npz")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


def test_files_that_are_none_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match=r"objects\.npz: expected an npz file of arrays, cannot read it"):
        read_pytorch(tmp_path / "objects.npz")
    with pytest.raises(ValueError, match=r"none\.tar: expected a file, got none"):
        read_pytorch(tmp_path / "none.tar")
    with pytest.raises(ValueError, match="expected a file, got a directory"):
        read_pytorch(tmp_path)


def test_without_pytorch_the_message_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "weights.pth.tar").write_bytes(b"\x80\x02any")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"pip install 'hadas-jax\[torch\]'"):
        read_pytorch(tmp_path / "weights.pth.tar")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def tensors(torch):
    return {name: torch.from_numpy(recipe.make_tensor(name, (4, 3))) for name in ("a.weight", "b.weight")}


@pytest.mark.slow
@pytest.mark.parametrize("nest", ["state_dict", "model_state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_are_read_however_they_are_nested(tmp_path, torch, tensors, nest, prefix, zipped):
    named = {prefix + name: tensor for name, tensor in tensors.items()}
    content = named if nest is None else {"epoch": 3, nest: named, "optimizer": {"state": {}, "lr": [0.1]}}
    torch.save(content, tmp_path / "x.pth.tar", _use_new_zipfile_serialization=zipped)
    found = read_pytorch(tmp_path / "x.pth.tar")
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name], tensor.numpy()) for name, tensor in tensors.items())


@pytest.mark.slow
def test_parameters_and_short_floats_become_plain_float32(tmp_path, torch, tensors):
    weight = tensors["a.weight"]
    content = {"a": torch.nn.Parameter(weight), "b": weight.bfloat16(), "c": torch.tensor(5)}
    torch.save(content, tmp_path / "x.pt")
    found = read_pytorch(tmp_path / "x.pt")
    assert [found[name].dtype for name in "abc"] == [np.float32, np.float32, np.int64]
    np.testing.assert_array_equal(found["a"], weight.numpy())
    np.testing.assert_allclose(found["b"], weight.numpy(), rtol=1e-2)


class RunsCode:
    """An object whose reading would call a function."""

    def __reduce__(self):
        return (print, ("this must not be printed",))


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_asks_to_run_code_is_refused_unread(tmp_path, torch, tensors, capsys, zipped):
    content = {"state_dict": tensors, "args": RunsCode()}
    torch.save(content, tmp_path / "x.pth.tar", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"x\.pth\.tar: expected tensors and plain containers alone, got .*print"):
        read_pytorch(tmp_path / "x.pth.tar")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_originals_settings_beside_the_weights_are_passed_over(tmp_path, torch, tensors, monkeypatch):
    module = type(sys)("utils.config")
    settings = type("Config", (dict,), {"__module__": "utils.config", "__qualname__": "Config"})
    module.Config = settings
    monkeypatch.setitem(sys.modules, "utils", type(sys)("utils"))
    monkeypatch.setitem(sys.modules, "utils.config", module)
    args = settings(epochs=3)
    args.__dict__["widths"] = [1, 2]
    torch.save({"args": args, "state_dict": tensors}, tmp_path / "x.pth.tar", _use_new_zipfile_serialization=False)
    monkeypatch.delitem(sys.modules, "utils.config")
    assert read_pytorch(tmp_path / "x.pth.tar").keys() == tensors.keys()


@pytest.mark.slow
def test_files_without_weights_are_refused(tmp_path, torch, tensors):
    for content, got in (([1, 2], "a list"), ({"epoch": 3, "best": 0.5}, "epoch, best"), ({}, "a dict")):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=rf"other\.pt: expected a state dict of tensors, got {got}"):
            read_pytorch(tmp_path / "other.pt")
