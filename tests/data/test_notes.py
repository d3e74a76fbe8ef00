import numpy as np
import pytest

from hadas_jax.data import LabelledImages, Splits
from hadas_jax.data.notes import first_few, one_line


def splits(*, channels=1, **options):
    parts = [LabelledImages(np.zeros((n, 8, 8, channels), np.uint8), np.zeros(n, np.int32)) for n in (1140, 30, 29, 1)]
    known = dict.fromkeys(("fingerprints", "evaluated_fingerprints"), np.zeros(0, np.uint64))
    return Splits(*parts, 12, "x", record=None, **known, **options)


def test_a_data_set_is_summed_up_in_one_line():
    parts = "1,140 images to train on, 30 validation, 29 calibration, 1 test"
    assert splits().summary() == f"12 classes, 8x8 pixels, grey; {parts}"
    names = tuple("abcdefghijkl")
    notes = ("left out: 3 files of .txt", "labels are one-hot rows")
    assert splits(channels=3, class_names=names, notes=notes).summary() == (
        f"12 classes (a, b, c, d, e, f, g, h, i, j and 2 more), 8x8 pixels, colour; {parts}; {'; '.join(notes)}"
    )
    assert "8x8 pixels, 4 channels;" in splits(channels=4).summary()


@pytest.mark.parametrize("name", ["a\nb", "a\r\n", "a\u2028b", "a\x1b[0m", "caf\udce9"])
def test_every_name_fits_into_a_line_of_text(name):
    assert len(one_line(name).splitlines()) == 1
    one_line(name).encode()
    assert one_line("Käse 日本 [1] 'x'") == "Käse 日本 [1] 'x'"


def test_the_first_few_are_named():
    assert first_few(["a"]) == "a"
    assert first_few("abcd") == "a, b, c and 1 more"
