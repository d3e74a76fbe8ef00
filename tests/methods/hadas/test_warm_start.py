import json

import numpy as np
import pytest

from hadas_jax.methods.hadas.archive import load_backbones
from hadas_jax.spaces import ATTENTIVENAS, PUBLISHED_NAMES, load_space, published

SPACE = ATTENTIVENAS.adapt(in_channels=3, classes=100, image_size=224)


def test_published_backbones_are_designs_of_the_space():
    found = load_backbones(PUBLISHED_NAMES, SPACE)
    assert found.shape == (7, 28)
    for name, genome in zip(PUBLISHED_NAMES, found, strict=True):
        decoded = SPACE.decode(genome)
        np.testing.assert_array_equal(decoded.width, published(name).width)
        np.testing.assert_array_equal(decoded.depth, published(name).depth)


def test_each_backbone_comes_once_and_no_source_gives_none(tmp_path):
    path = tmp_path / "front.json"
    genome = [0] * 28
    path.write_text(json.dumps({"designs": [{"genome": genome}, {"genome": genome}]}))
    found = load_backbones(["a6", str(path), "a6"], SPACE)
    np.testing.assert_array_equal(found, [SPACE.encode(published("a6")), genome])
    assert load_backbones([], SPACE) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected the front.json of a run, cannot read it"),
        ('{"designs": [{}]}', "expected the front.json of a run, cannot read it"),
        ('{"designs": [{"genome": [1, 2]}]}', r"expected backbones of the space attentivenas \(28 genes\)"),
        (json.dumps({"designs": [{"genome": [9] * 28}]}), "expected backbones of the space attentivenas"),
    ],
)
def test_files_that_are_no_front_are_refused(tmp_path, content, message):
    path = tmp_path / "front.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"warm_start .*: {message}"):
        load_backbones([str(path)], SPACE)


def test_unknown_names_and_other_spaces_are_refused(tiny_space):
    with pytest.raises(ValueError, match=r"expected some of a0, .* or a front\.json file, got 'a9'"):
        load_backbones(["a9"], SPACE)
    with pytest.raises(ValueError, match="warm_start a0: expected a backbone of the space tiny"):
        load_backbones(["a0"], tiny_space)
    with pytest.raises(ValueError, match="cannot read it"):
        load_backbones(["nowhere.json"], SPACE)
    with pytest.raises(ValueError, match="unknown backbone"):
        published("b1")


def test_in_a_space_of_one_resolution_published_backbones_run_at_that():
    native = load_space("attentivenas-native").adapt(in_channels=3, classes=100, image_size=32)
    found = load_backbones(PUBLISHED_NAMES, native)
    assert found.shape == (7, 27)
    assert int(native.decode(found[0]).resolution) == 32
    np.testing.assert_array_equal(native.decode(found[0]).width, published("a0").width)
