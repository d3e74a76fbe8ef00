"""Drawn checkpoints: wrappers, containers, extras, number formats and damage; the weights are the plain ones or a line.

The plain state dict, imported as it is, is the oracle: whatever is put around it must not change a bit of what is
imported.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import draw_network
from fuzzing import DRAWS
from hypothesis import given, settings
from hypothesis import strategies as st
from original_checkpoint import write_original

from hadas_jax.spaces import MBConvSpace, Stage
from hadas_jax.supernet.pytorch import from_pytorch
from hadas_jax.supernet.pytorch_files import read_tensors

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")]

SPACE = MBConvSpace(
    name="fuzzed",
    resolution=(8,),
    stem_width=(4,),
    stem_stride=2,
    stages=(Stage((4,), (1, 2), (3,), (1,), stride=1),),
    last_width=(4,),
    head_expand=1,
    first_exit=0,
    exit_width=4,
    in_channels=1,
    classes=3,
)
KEY = jax.random.key(0)
PLAIN = {
    name: np.array(array) for name, array in write_original(SPACE, *draw_network(SPACE, 0)).items()
}  # writable copies
STATISTICS = tuple(name for name in PLAIN if name.rpartition(".")[2] in ("running_mean", "running_var"))
WEIGHTS = tuple(
    name
    for name, array in PLAIN.items()
    if array.dtype == np.float32 and name not in STATISTICS and "bn_tracking" not in name and ".shortcut." not in name
)
KEYS = ("net", "state_dict", "model", "model_state_dict", "weights", "student", "0", "größe", "a b", "checkpoint")
PREFIXES = ("module", "_orig_mod", "model", "net", "backbone", "_forward_module", "_fsdp_wrapped_module", "encoder")
AVERAGED = ("model_ema", "state_dict_ema", "ema", "EMA", "ema_state_dict", "swa_model", "avg_model")


def imported(arrays, **arguments):
    found = from_pytorch(SPACE, arrays, key=KEY, **arguments)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found.params.backbone)], found


EXPECTED, _ = imported(PLAIN)


def expected_in(kind):
    """What the plain state dict is imported as after a cast, which may round."""
    cast = {n: a.astype(kind) if a.dtype == np.float32 else a for n, a in PLAIN.items()}
    return EXPECTED if np.dtype(kind).itemsize >= 4 else imported(cast)[0]


IN_KIND = {kind: expected_in(kind) for kind in (np.float16, np.float32, np.float64)}


def equal(left, right):
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@st.composite
def wrapped_names(draw, names):
    """New names: one drawn prefix before all, and wrappers within some, at the same places of all names below them."""
    prefix = draw(st.lists(st.sampled_from(PREFIXES), max_size=4))
    within = draw(st.lists(st.sampled_from(["blocks.0", "blocks", "first_conv", "classifier.linear"]), max_size=2))
    wrapper = draw(st.sampled_from(["module", "_orig_mod", "_checkpoint_wrapped_module"]))
    found = {}
    for name in names:
        wrapped = name
        for place in within:
            if wrapped.startswith(place + "."):
                wrapped = f"{place}.{wrapper}.{wrapped[len(place) + 1 :]}"
        found[name] = ".".join([*prefix, wrapped])
    return found


@st.composite
def contents(draw, entries):
    """A file's content around a state dict: containers, and what training scripts put beside it."""
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in entries.items()}
    content = tensors
    depth = draw(st.integers(0, 2))
    for level in range(depth):
        beside = {
            "epoch": draw(st.integers(0, 300)),
            "acc": draw(st.sampled_from([0.5, torch.tensor(0.5), torch.arange(3)])),
            "optimizer": {"state": {0: {"exp_avg": torch.ones(4), "step": torch.tensor(1.0)}}, "param_groups": [{}]},
            "hyper_parameters": {"lr": 1e-3, "space": "x", "sizes": [1, 2, (3, 4)]},
            "rng_state": torch.zeros(16, dtype=torch.uint8),
            "callbacks": {"best": {"best_model_score": torch.tensor(1.0)}},
        }
        kept = draw(st.lists(st.sampled_from(list(beside)), unique=True))
        is_list = level == depth - 1 and draw(st.booleans()) and not kept
        key = draw(st.sampled_from(KEYS))
        content = [content, 3] if is_list else {**{name: beside[name] for name in kept}, key: content}
    if isinstance(content, dict) and depth and draw(st.booleans()):
        others = {name: tensor + 1 for name, tensor in tensors.items()}
        content = {draw(st.sampled_from(AVERAGED)): others, **content}
    return content


@st.composite
def checkpoints(draw):
    """A file's content, and what it is imported as."""
    entries = dict(PLAIN)
    statistics = draw(st.sampled_from(["kept", "absent", "nan", "some"]))
    for name in STATISTICS:
        if statistics == "nan":
            entries[name] = np.full_like(entries[name], np.nan)
        elif statistics == "absent" or (statistics == "some" and draw(st.booleans())):
            del entries[name]
    if draw(st.booleans()):
        entries = {name: array for name, array in entries.items() if not name.endswith("num_batches_tracked")}
    kind = draw(st.sampled_from(list(IN_KIND)))
    entries = {name: a.astype(kind) if a.dtype == np.float32 else a for name, a in entries.items()}
    if draw(st.booleans()):
        entries |= {"loss.weight": np.ones(3, np.float32), "extra": np.zeros((), np.int64)}
    names = draw(wrapped_names(entries))
    entries = {names[name]: array for name, array in entries.items()}
    if draw(st.booleans()):
        entries["n_averaged"] = np.zeros((), np.int64)
    return draw(contents(entries)), IN_KIND[kind]


def written(content, *, zipped=True):
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(content, file.name, _use_new_zipfile_serialization=zipped)
        return Path(file.name).read_bytes()


def read(content):
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        Path(file.name).write_bytes(content)
        return read_tensors(file.name)


@settings(max_examples=DRAWS)
@given(checkpoints(), st.booleans())
def test_whatever_is_around_the_weights_they_are_the_plain_ones(drawn, zipped):
    content, expected = drawn
    assert equal(imported(read(written(content, zipped=zipped)))[0], expected)


@settings(max_examples=DRAWS)
@given(st.data())
def test_weights_that_are_wrong_are_named_in_one_line(data):
    entries = dict(PLAIN)
    name = data.draw(st.sampled_from(WEIGHTS))
    fault = data.draw(st.sampled_from(["missing", "nan", "inf", "shape", "whole", "complex", "huge"]))
    if fault == "missing":
        del entries[name]
    elif fault == "shape":
        entries[name] = np.concatenate([entries[name], entries[name]])
    elif fault in ("whole", "complex"):
        entries[name] = entries[name].astype(data.draw(st.sampled_from([np.int8, np.int64, bool]))) * (
            1j if fault == "complex" else 1
        )
    else:
        kind = np.float64 if fault == "huge" else np.float32
        values = entries[name].astype(kind).ravel()
        values[data.draw(st.integers(0, values.size - 1))] = {"nan": np.nan, "inf": np.inf, "huge": 1e300}[fault]
        entries[name] = values.reshape(PLAIN[name].shape)
    names = data.draw(wrapped_names(entries))
    arrays = {f"file.{names[old]}": array for old, array in entries.items()}
    with pytest.raises(ValueError, match="expected") as raised:
        imported(arrays)
    # The classifier's bias says how many classes there are.
    told = "classifier.linear.linear.weight" if name.startswith("classifier") and fault == "shape" else name
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@settings(max_examples=DRAWS)
@given(st.data())
def test_a_damaged_file_is_one_line_or_has_the_plain_weights(data):
    whole = bytearray(WHOLE)
    kind = data.draw(st.sampled_from(["cut", "flip", "text", "zeros"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    if kind == "cut":
        del whole[at:]
    elif kind == "flip":
        whole[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "zeros":
        whole[at : at + 64] = bytes(len(whole[at : at + 64]))
    else:
        whole = data.draw(st.binary(max_size=200)) + whole[at:]
    found, message = None, "checkpoint"
    try:
        found = imported(read(bytes(whole)))[0]
    except ValueError as error:
        message = str(error)
    assert message.startswith("checkpoint")
    assert "\n" not in message
    assert found is None or equal(found, EXPECTED)


WHOLE = written({"net": {f"module.{name}": torch.from_numpy(array) for name, array in PLAIN.items()}, "epoch": 3})


@settings(max_examples=DRAWS)
@given(st.data())
def test_averaged_weights_are_taken_where_they_are_alone_or_asked_for(data):
    plain, averaged = data.draw(st.sampled_from(KEYS)), data.draw(st.sampled_from(AVERAGED))
    names = data.draw(wrapped_names(PLAIN))
    entries = {f"{plain}.{names[name]}": array for name, array in PLAIN.items()}
    others = {f"{averaged}.{names[name]}": array + 1 if array.ndim else array for name, array in PLAIN.items()}
    shifted = [leaf + 1 for leaf in EXPECTED]
    order = [entries, others] if data.draw(st.booleans()) else [others, entries]
    found, told = imported(order[0] | order[1])
    assert equal(found, EXPECTED)
    assert f"not taken: {averaged}" in " ".join(told.notes)
    asked = data.draw(st.booleans())
    found = imported(order[0] | order[1], entry=averaged)[0] if asked else imported(others)[0]
    assert all(np.array_equal(a, b) for a, b in zip(found, shifted, strict=True))
