import json
import math

import numpy as np
import pytest

from hadas_jax.deploy.architecture import (
    Architecture,
    SupernetReference,
    architecture_file,
    read_architecture,
    write_architecture,
)
from hw_models.catalogue import chosen_device


@pytest.fixture
def content(architecture, tmp_path):
    """The JSON of the network, to be damaged."""
    write_architecture(tmp_path / "whole.json", architecture)
    return json.loads((tmp_path / "whole.json").read_text())


def test_what_is_written_is_read_back(architecture, tmp_path):
    write_architecture(tmp_path / "arch.json", architecture)
    assert read_architecture(tmp_path / "arch.json") == architecture


def test_a_work_directory_stands_for_its_own_network(architecture, tmp_path):
    write_architecture(tmp_path / "architecture.json", architecture)
    assert architecture_file(tmp_path) == tmp_path / "architecture.json"
    assert read_architecture(tmp_path) == architecture


def test_a_threshold_that_no_sample_reaches_is_null_in_the_file(architecture, tmp_path):
    never = architecture.model_copy(update={"thresholds": (math.inf,) * len(architecture.exits)})
    write_architecture(tmp_path / "arch.json", never)
    assert json.loads((tmp_path / "arch.json").read_text())["thresholds"] == [None] * len(architecture.exits)
    assert read_architecture(tmp_path / "arch.json").thresholds == never.thresholds


def test_space_and_device_are_those_of_the_search(architecture, found):
    assert architecture.space.classes == 10
    assert architecture.space.resolution == (8,)
    device, searched = architecture.device.load(), chosen_device(found.settings.device, found.settings.operating)
    assert device.name == searched.name == "tx2-gpu"
    assert device.formats == searched.formats
    np.testing.assert_array_equal(device.core_hz, searched.core_hz)
    assert architecture.normalisation is not None
    assert len(architecture.normalisation.mean) == 1


def test_the_exit_mask_marks_the_positions_of_the_exits(architecture):
    space, exits = architecture.space, architecture.exits
    assert len(exits) == np.sum(architecture.exit_mask) > 0
    depths = zip(space.stages, np.asarray(architecture.decoded.depth), strict=True)
    active = np.concatenate([np.arange(max(stage.depth)) < depth for stage, depth in depths])
    own = np.cumsum(active) - 1
    positions = space.first_exit + np.flatnonzero(architecture.exit_mask)
    assert tuple(own[positions]) == exits


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            {"form": "hadas_jax.architecture/2"},
            "expected form hadas_jax.architecture/1, got 'hadas_jax.architecture/2'",
        ),
        ({"form": "hadas_jax.front/1"}, "expected form hadas_jax.architecture/1, got 'hadas_jax.front/1'"),
        ({"genome": [0] * 4}, "genome: expected 3 genes of the space tiny, got (0, 0, 0, 0)"),
        ({"genome": [0, 0, 9]}, "genome: expected 3 genes"),
        ({"backbone": {"resolution": 8}}, "backbone: expected what the genome says"),
        ({"exits": [7]}, "exits: expected rising blocks in 1 .. "),
        ({"thresholds": []}, "thresholds: expected"),
        ({"policy": "luck"}, "policy: expected 'confidence', 'entropy' or 'learned', got 'luck'"),
        ({"class_names": ["one"]}, "class_names: expected 10 values"),
        ({"normalisation": {"mean": [0.1, 0.2], "deviation": [1.0]}}, "normalisation.mean: expected 1 values"),
        ({"clocks_mhz": {"core": -1, "memory": 1, "host": 1}}, "clocks_mhz.core: expected a number above 0, got -1"),
        ({"supernet": {"path": "x", "sha256": "?"}}, "supernet.sha256: expected text that matches"),
        ({"mood": "good"}, "mood: expected no field of this name"),
        ({"space": {"name": "other"}}, "space.resolution: expected a value, got nothing"),
    ],
)
def test_what_does_not_fit_is_one_line(content, damage, message, tmp_path):
    path = tmp_path / "arch.json"
    path.write_text(json.dumps(content | damage))
    with pytest.raises(ValueError, match=r"arch\.json: ") as caught:
        read_architecture(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


OPTIONAL = {"form", "data", "peak_memory_bytes", "weight_bytes"}  # some of which earlier versions lack


@pytest.mark.parametrize("field", sorted(set(Architecture.model_fields) - OPTIONAL))
def test_a_missing_field_is_named(content, field, tmp_path):
    del content[field]
    (tmp_path / "arch.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"arch\.json: {field}: expected a value, got nothing"):
        read_architecture(tmp_path / "arch.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "3", "{}"])
def test_another_file_is_refused(text, tmp_path):
    (tmp_path / "arch.json").write_text(text)
    with pytest.raises(ValueError, match=r"expected an ARCH\.json as hadas select writes, cannot read it"):
        read_architecture(tmp_path / "arch.json")


def test_a_work_directory_without_a_network_is_told_how_to_get_one(tmp_path):
    with pytest.raises(ValueError, match=r"got none; hadas select WORKDIR writes it"):
        read_architecture(tmp_path)


def test_a_file_that_exists_is_replaced_only_when_asked(architecture, tmp_path):
    path = tmp_path / "arch.json"
    path.write_text("mine")
    with pytest.raises(ValueError, match="`overwrite` replaces it"):
        write_architecture(path, architecture)
    assert path.read_text() == "mine"
    write_architecture(path, architecture, overwrite=True)
    assert read_architecture(path) == architecture
    with pytest.raises(ValueError, match="expected a file in an existing folder"):
        write_architecture(tmp_path / "none" / "arch.json", architecture)


def test_the_supernet_is_found_from_the_file_and_another_one_is_refused(architecture, finished, tmp_path):
    assert architecture.supernet.path == "supernet"
    assert architecture.supernet.directory(finished / "architecture.json") == finished / "supernet"
    elsewhere = SupernetReference.to(finished / "supernet", folder=tmp_path)
    assert elsewhere.path == str((finished / "supernet").resolve())
    with pytest.raises(ValueError, match=r"expected the supernet of the network at .*, got none"):
        architecture.supernet.directory(tmp_path / "arch.json")
    other = architecture.supernet.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ValueError, match="got another one"):
        other.directory(finished / "architecture.json")
