import numpy as np
import pytest

from hw_models.files import read_arrays, write_arrays

FORM = "hw_models.thing/1"


def test_arrays_and_metadata_come_back(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.int8).reshape(2, 3), "b": np.float32(0.1)}
    write_arrays(tmp_path / "x.npz", arrays, form=FORM, metadata={"name": "x", "sizes": [1, 2]})
    found, metadata = read_arrays(tmp_path / "x.npz", form=FORM)
    assert metadata == {"form": FORM, "name": "x", "sizes": [1, 2]}
    assert list(found) == ["a", "b"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_a_file_of_another_form_is_refused(tmp_path):
    write_arrays(tmp_path / "x.npz", {}, form="other/1", metadata={})
    with pytest.raises(ValueError, match="form 'other/1'"):
        read_arrays(tmp_path / "x.npz", form=FORM)


def test_a_place_that_cannot_be_written_to_is_said_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"x\.npz: expected a file that can be written, got: No such file"):
        write_arrays(tmp_path / "none" / "x.npz", {}, form=FORM, metadata={})
