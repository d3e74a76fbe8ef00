"""Drawn settings files: however YAML or JSON spells a setting, it comes back equal; what does not fit is one line."""

import json
import math
import tempfile
from pathlib import Path

import pytest
from fuzzing import DRAWS
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas_jax.commands.run import settings_from
from hadas_jax.settings import DnasSettings, FineTuneSettings, RetrainSettings, SearchSettings, TrainSettings
from hw_models.files import dump_yaml

pytestmark = pytest.mark.slow

WHOLE = {"epochs": 1, "exit_epochs": 1, "batch": 1, "sampled": 0, "seed": 0, "image_size": 1, "eval_batch": 1}
MOST = {"sampled": 256}
KINDS = (SearchSettings, TrainSettings, DnasSettings, RetrainSettings, FineTuneSettings)
REAL = ("learning_rate", "exit_learning_rate", "weight_decay")
SHARES = ("label_smoothing", "dropout", "drop_connect")
CHOICES = {"sampling": ("uniform", "bestup"), "distillation": ("kl", "alpha"), "dtype": ("float32", "bfloat16")}
FLAGS = ("remat", "data_parallel", "debug")
TEXTS = ("data_dir", "space", "checkpoint")
REAL_VALUES = st.floats(1e-300, 1e300, allow_nan=False, allow_subnormal=False)
PLAIN_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1).filter(
    lambda text: not text.startswith("~") and text.isprintable()
)


@st.composite
def spelt_numbers(draw, value):
    """A number as people write it: 1e-05, 1E-5, +1.0e-5, 0.00001, with blanks around."""
    if isinstance(value, int):
        return draw(st.sampled_from([f"{value}", f"+{value}", f"  {value} ", f"{value:_}"]))
    spellings = [repr(value), repr(value).upper(), f"+{value!r}", f"{value:.17e}", f"{value:.17E}"]
    mantissa, _, exponent = f"{value:.17e}".partition("e")
    spellings += [f"{mantissa}e{int(exponent)}", f"{mantissa}E{int(exponent):+d}"]
    if value == int(value) and value < 1e15:
        spellings += [f"{int(value)}.", f"{int(value)}.0", f"{int(value)}e0"]
    return draw(st.sampled_from(spellings))


@st.composite
def spelt_settings(draw):
    """Settings by name, and the YAML lines of each."""
    values, lines = {}, []
    for name in draw(st.lists(st.sampled_from([*WHOLE, *REAL, *SHARES, *CHOICES, *FLAGS, *TEXTS]), unique=True)):
        if name in WHOLE:
            values[name] = draw(st.integers(WHOLE[name], MOST.get(name, 2**62)))
            spelt = draw(spelt_numbers(values[name]))
        elif name in REAL or name in SHARES:
            values[name] = draw(REAL_VALUES if name in REAL else st.floats(0, 0.99))
            spelt = draw(spelt_numbers(values[name]))
        elif name in CHOICES:
            values[name] = draw(st.sampled_from(CHOICES[name]))
            spelt = draw(st.sampled_from([values[name], f"'{values[name]}'", f'"{values[name]}"']))
        elif name in FLAGS:
            values[name] = draw(st.booleans())
            spelt = draw(st.sampled_from([str(values[name]).lower(), str(values[name]), str(values[name]).upper()]))
        else:
            values[name] = draw(st.none() | PLAIN_TEXT)
            quoted = json.dumps(values[name], ensure_ascii=draw(st.booleans()))
            spelt = draw(st.sampled_from(["null", "~", "", "Null"])) if values[name] is None else quoted
        key = draw(st.sampled_from([name, f'"{name}"', f"'{name}'"]))
        comment = draw(st.sampled_from(["", "  # kept", "   "]))
        lines.append(f"{key}: {spelt}{comment}")
    return values, lines


def read(content, kind=TrainSettings):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return settings_from(kind, {}, file=path)


def message_of(content, kind=TrainSettings):
    """The line that a file is refused with; None where it is not."""
    try:
        read(content, kind)
    except ValueError as error:
        return str(error)
    return None


@settings(max_examples=DRAWS)
@given(
    spelt_settings(), st.sampled_from(["\n", "\r\n", "\n\n", "\n# more\n"]), st.sampled_from(["", "\ufeff", "---\n"])
)
def test_settings_come_back_equal_however_yaml_spells_them(drawn, between, start):
    values, lines = drawn
    if lines:
        assert read(start + between.join(lines) + "\n") == TrainSettings.of(**values)


@settings(max_examples=DRAWS)
@given(spelt_settings(), st.sampled_from(KINDS), st.booleans())
def test_settings_written_as_json_or_yaml_or_by_a_run_are_read_back(drawn, kind, is_yaml):
    values, _ = drawn
    stored = {"form": f"hadas_jax.{kind.KIND}/1", "settings": values, "versions": {"jax": "1e5"}}
    write = dump_yaml if is_yaml else json.dumps
    if values:
        assert read(write(values)) == TrainSettings.of(**values)
    if kind is TrainSettings:
        assert read(write(stored)) == TrainSettings.of(**values)
    else:
        assert f"a run of hadas {kind.KIND}" in message_of(write(stored))


ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
FIELDS = tuple(SearchSettings().flat())


@settings(max_examples=DRAWS)
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=12), ANY_VALUE, min_size=1, max_size=3))
def test_values_that_do_not_fit_are_one_line(values):
    message = message_of(json.dumps(values), SearchSettings)
    if message is None:
        kept = read(json.dumps(values), SearchSettings).flat()
        numbers = [kept[name] for name in values if isinstance(kept[name], float)]
        assert all(math.isfinite(number) for number in numbers)
    else:
        assert message.startswith("config ")
        assert "\n" not in message


@settings(max_examples=DRAWS)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_files_of_anything_are_settings_or_one_line(content):
    message = message_of(content)
    assert message is None or "\n" not in message
