import json

import pytest

from hadas_jax.spaces.darts import format_code
from hadas_jax.spaces.genotype_source import read_genotype
from hadas_jax.spaces.genotypes import code_of, genotype_of, published_genotype

GENOTYPE = published_genotype("OURS_ACC")
SAME = genotype_of(code_of(GENOTYPE))  # with the edges of a node in order
CODE = format_code(code_of(GENOTYPE))


def test_a_published_name_is_read():
    assert read_genotype("OURS_ACC") == GENOTYPE


@pytest.mark.parametrize("text", [CODE, "".join(CODE.split()), CODE + "\n"])
def test_a_code_is_read_from_text_and_from_a_file(text, tmp_path):
    assert read_genotype(text) == SAME
    (tmp_path / "code.txt").write_text(text)
    assert read_genotype(str(tmp_path / "code.txt")) == SAME


def test_the_text_of_darts_is_read_from_text_and_from_a_file(tmp_path):
    assert read_genotype(f"MINE = {GENOTYPE}") == GENOTYPE
    (tmp_path / "genotype.txt").write_text(f"{GENOTYPE}\n")
    assert read_genotype(str(tmp_path / "genotype.txt")) == GENOTYPE


def test_the_file_of_a_search_is_read_by_its_path_and_by_its_directory(tmp_path):
    content = {"form": "hadas_jax.genotype/1", "code": CODE, "genotype": str(GENOTYPE), "images_per_s": 1.0}
    (tmp_path / "genotype.json").write_text(json.dumps(content))
    assert read_genotype(str(tmp_path / "genotype.json")) == SAME
    assert read_genotype(str(tmp_path)) == SAME


@pytest.mark.parametrize("source", ["DARTS_V3", "no/such/file.json", "", "\0"])
def test_what_is_no_genotype_is_refused_with_what_there_is(source):
    with pytest.raises(ValueError, match=r"genotype: expected one of DARTS_V1, .*, a code of 28 digits, Genotype\("):
        read_genotype(source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a code, Genotype.* or JSON of form hadas_jax.genotype/1"),
        ("[1, 2]", "expected a code"),
        ('{"form": "hadas_jax.search/1", "code": ""}', "got form 'hadas_jax.search/1'"),
        ('{"form": "hadas_jax.genotype/1", "code": 12}', "a code as text"),
        ('{"form": "hadas_jax.genotype/1", "code": "12"}', "expected 28 digits"),
        ("0" * 28, "expected 2 edges to node 0"),
    ],
)
def test_a_file_with_something_else_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"mine.json: .*{message}"):
        read_genotype(str(path))
