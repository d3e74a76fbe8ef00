import json

import numpy as np
import pytest

from hadas_jax.spaces.darts import format_code
from hadas_jax.spaces.genotypes import Genotype, code_of, published_genotype, read_architecture

CODE = code_of(published_genotype("OURS_PIP"))


@pytest.mark.parametrize(
    "text",
    [
        "OURS_PIP",
        format_code(CODE),
        "".join(map(str, CODE)),
        str(Genotype.of(CODE)),
        f" genotype = {Genotype.of(CODE)}\n",
    ],
)
def test_every_form_is_the_same_network(text, tmp_path):
    np.testing.assert_array_equal(read_architecture(text), CODE)
    (tmp_path / "network.txt").write_text(text)
    np.testing.assert_array_equal(read_architecture(str(tmp_path / "network.txt")), CODE)
    (tmp_path / "network.json").write_text(json.dumps({"genotype": text, "other": 1}))
    np.testing.assert_array_equal(read_architecture(str(tmp_path / "network.json")), CODE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DARTS_V9", "architecture: expected one of DARTS_V1, .* got 'DARTS_V9'"),
        ("", "architecture: expected one of"),
        ("x" * 99, r"got 'x{57}\.\.\.'"),
        ("12 34", "code: expected 28 digits, got '12 34'"),
        ("9" * 28, "code: expected digits from 0 to 7, got 9"),
        ("Genotype(normal=[])", "genotype: reduce: expected a list of"),
        ("none.json", r"none\.json: expected a file of an architecture, got: No such file"),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_architecture(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"n\.json: expected an architecture under genotype, cannot read it"),
        ("[]", "expected an architecture under genotype"),
        ('{"genotype": 3}', "expected the text of an architecture"),
        ('{"genotype": "12"}', r"n\.json: code: expected 28 digits, got '12'"),
    ],
)
def test_a_wrong_file_is_named(content, message, tmp_path):
    (tmp_path / "n.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_architecture(str(tmp_path / "n.json"))


def test_a_file_does_not_name_another_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.txt").write_text("loop.txt")
    with pytest.raises(ValueError, match=r"loop\.txt: expected the text of an architecture"):
        read_architecture("loop.txt")
