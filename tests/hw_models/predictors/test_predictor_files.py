import json

import jax
import numpy as np
import pytest

from hadas_jax.spaces.darts import DARTS_CODES
from hw_models import predictors
from hw_models.predictors import KINDS, write_predictor


def read_predictor(path):
    return predictors.read_predictor(path, layout=DARTS_CODES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_predictor_is_read_as_it_was_written(kind, fitted, tmp_path):
    predictor = fitted[kind].predictor
    write_predictor(predictor, tmp_path / "p.npz")
    again = read_predictor(tmp_path / "p.npz")
    assert jax.tree.structure(again) == jax.tree.structure(predictor)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, predictor))
    assert again.notes == predictor.notes
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


def test_a_predictor_that_nothing_is_known_of_is_read_too(drawn, tmp_path):
    predictor = drawn("mlp", 1).replace(scale="linear")
    write_predictor(predictor, tmp_path / "p.npz")
    assert read_predictor(tmp_path / "p.npz").notes == predictor.notes
    assert read_predictor(tmp_path / "p.npz").scale == "linear"


def changed(arrays, **metadata):
    return arrays | {"metadata": np.array(json.dumps(json.loads(str(arrays["metadata"])) | metadata))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: changed(a, form="hw_models.predictor/9"), "form 'hw_models.predictor/9'"),
        (lambda a: changed(a, kind="tree"), "kind 'tree'"),
        (lambda a: changed(a, scale="square"), "scale 'square'"),
        (lambda a: changed(a, members=5), r"expected float32\[5"),
        (lambda a: changed(a, hidden=[3]), r"expected float32"),
        (lambda a: changed(a, notes=[]), ""),
        (lambda a: changed(a, notes={"network": {}, "colour": 3}), ""),
        (lambda a: {k: v for k, v in a.items() if k != "mean"}, r"mean: expected float32\[\]"),
        (lambda a: a | {"deviation": np.float32(np.nan)}, "deviation: expected finite numbers"),
        (lambda a: a | {"mean": np.float64(1)}, r"mean: expected float32\[\]"),
        (lambda a: {"codes": np.zeros(3)}, ""),
        (lambda a: a | {"metadata": np.array("{")}, ""),
    ],
)
def test_another_file_is_refused_in_one_line(change, message, drawn, tmp_path):
    path = tmp_path / "p.npz"
    write_predictor(drawn("mlp", 2), path)
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(path, **change(arrays))
    with pytest.raises(ValueError, match=r"p\.npz: expected a predictor \(hw_models\.predictor/1\)") as caught:
        read_predictor(path)
    assert message.replace("\\", "") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_refused(drawn, tmp_path):
    path = tmp_path / "p.npz"
    write_predictor(drawn("mlp", 2), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="expected a predictor"):
        read_predictor(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="expected a predictor"):
        read_predictor(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got no file"):
        read_predictor(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="got a folder"):
        read_predictor(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(drawn, tmp_path):
    with pytest.raises(ValueError, match="expected a file that can be written, got: No such file"):
        write_predictor(drawn("mlp", 1), tmp_path / "none" / "p.npz")
