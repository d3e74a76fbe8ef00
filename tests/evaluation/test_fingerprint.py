import numpy as np
import pytest

from hadas_jax.evaluation.evaluator import fingerprint

VALUE = {"a": np.arange(6, dtype=np.int32), "b": np.zeros((2, 3), np.float32)}


def test_equal_values_have_equal_names():
    copy = {"b": np.zeros((2, 3), np.float32), "a": np.arange(6, dtype=np.int32)}
    assert fingerprint("text", VALUE) == fingerprint("text", copy)
    assert len(fingerprint(VALUE)) == 20


@pytest.mark.parametrize(
    "other",
    [
        VALUE | {"a": np.array([0, 1, 2, 3, 4, 6], np.int32)},
        VALUE | {"a": np.arange(6, dtype=np.uint32)},
        VALUE | {"b": np.zeros((3, 2), np.float32)},
        {"a": VALUE["a"], "c": VALUE["b"]},
        {"a": VALUE["a"]},
    ],
)
def test_content_type_shape_and_names_count(other):
    assert fingerprint(VALUE) != fingerprint(other)


def test_texts_are_told_apart_and_in_order():
    assert len({fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint("c", "ab"), fingerprint("abc")}) == 4
