"""Tests of where wanted weights are found: under any prefix, in any container, told from others beside them."""

import numpy as np
import pytest

from hadas_jax.supernet.pytorch_files import locate, plain_name

NAMES = ("first.weight", "first.bias", "blocks.0.conv.weight", "blocks.1.conv.weight")
ENTRIES = {name: np.full(2, number, np.float32) for number, name in enumerate(NAMES)}


def under(prefix, entries=ENTRIES):
    return {f"{prefix}{name}": array for name, array in entries.items()}


def equal(found, wanted=ENTRIES):
    return found.keys() == wanted.keys() and all(found[name] is array for name, array in wanted.items())


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.module._orig_mod.",
     "state_dict.model.net._orig_mod.", "a.b.c.d.e."],
)  # fmt: skip
def test_any_prefix_is_taken_off(prefix):
    found = locate(under(prefix), NAMES)
    assert equal(found.arrays)
    assert found.prefix == prefix[:-1]
    assert found.left == {}


def test_wrapped_parts_are_unwrapped_within_names():
    entries = {name.replace("blocks.1.", "blocks.1._orig_mod.module."): array for name, array in ENTRIES.items()}
    assert equal(locate(under("model.", entries), NAMES).arrays)


def test_what_lies_elsewhere_is_counted_by_prefix():
    others = {"optimizer.state.0.exp_avg": np.ones(2), "optimizer.state.1.exp_avg": np.ones(2), "acc": np.ones(())}
    criterion = {"state_dict.criterion.weight": np.ones(3), "state_dict.model.extra": np.ones(1)}
    found = locate(under("state_dict.model.") | criterion | others, NAMES)
    assert found.left == {"state_dict.criterion": 1, "optimizer": 2, "acc": 1}
    assert equal(found.arrays, ENTRIES | {"extra": criterion["state_dict.model.extra"]})


@pytest.mark.parametrize(
    ("plain", "averaged"),
    [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("state_dict", "ema_state_dict.module"),
     ("net", "EMA"), ("state_dict.model", "state_dict.ema_model"), ("model", "swa_model"), ("model", "avg")],
)  # fmt: skip
def test_averaged_weights_beside_plain_ones_are_taken_only_when_asked_for(plain, averaged):
    others = {name: array + 10 for name, array in ENTRIES.items()}
    entries = under(f"{averaged}.", others) | under(f"{plain}.")
    assert equal(locate(entries, NAMES).arrays)
    assert equal(locate(entries, NAMES, entry=averaged).arrays, others)
    assert equal(locate(under(f"{averaged}.", others), NAMES).arrays, others)


def test_plain_weights_that_lack_entries_are_not_replaced_by_averaged_ones():
    entries = under("model_ema.") | under("model.")
    del entries["model.first.bias"]
    assert locate(entries, NAMES).prefix == "model"


def test_two_prefixes_that_are_both_plain_have_to_be_chosen_from():
    entries = under("best.") | under("last.")
    with pytest.raises(ValueError, match="entry: expected one of best, last, which all hold such weights, got none"):
        locate(entries, NAMES)
    assert locate(entries, NAMES, entry="last").prefix == "last"
    with pytest.raises(ValueError, match="entry: expected one of best, last, got 'first'"):
        locate(entries, NAMES, entry="first")


def test_a_file_that_is_a_state_dict_is_taken_whole():
    found = locate(ENTRIES | under("teacher."), NAMES)
    assert found.prefix == ""
    assert found.arrays.keys() == (ENTRIES | under("teacher.")).keys()


def test_a_prefix_with_a_few_of_the_names_is_no_rival():
    entries = under("model.") | {"other.first.weight": np.ones(2)}
    assert locate(entries, NAMES).prefix == "model"


def test_names_that_nothing_here_has_are_shown():
    with pytest.raises(ValueError, match=r"expected entries such as first\.bias, got conv1\.weight, fc\.bias"):
        locate({"conv1.weight": np.ones(1), "fc.bias": np.ones(1)}, NAMES)


def test_an_entry_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match=r"expected one entry first\.bias, got two"):
        locate(under("model.") | {"model.module.first.bias": np.ones(2)}, NAMES)


def test_the_last_part_of_a_name_is_no_wrapper():
    assert plain_name("module.a._orig_mod.module.b._extra_state") == "a.b._extra_state"
