import csv
import shutil

import numpy as np
import pytest

from hadas_jax.cli import main


@pytest.mark.slow
def test_a_search_goes_on_from_another_one_with_its_settings_and_supernet(
    finished_search, listed_space, tmp_path, capsys
):
    before, after = finished_search[0], tmp_path / "after"
    main(["search", "--resume-from", str(before), "--seed", "3", "--generations", "1", "--workdir", str(after)])
    known, found = (_arrays(place / "evaluated.npz") for place in (before, after))
    count = len(known["genomes"])
    np.testing.assert_array_equal(found["genomes"][:count], known["genomes"])
    np.testing.assert_array_equal(found["correct"][:count], known["correct"])
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{count} of {len(found['genomes'])} backbones were evaluated by {before}" in printed
    assert not (after / "supernet").exists()  # that of the other search serves
    rows = [list(csv.DictReader((place / "front.csv").read_text().splitlines())) for place in (before, after)]
    assert rows[1]
    assert rows[1][0].keys() == rows[0][0].keys()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--stats-batches 2", "--resume-from {before}: expected --stats-batches 4 as that search has, got 2"),
        ("--checkpoint {copy}", "expected --checkpoint {before}/supernet, the supernet of that search"),
    ],
)
def test_what_does_not_fit_the_other_search_is_one_line(
    finished_search, listed_space, flags, message, tmp_path, capsys
):
    before, copy = finished_search[0], tmp_path / "copy"
    shutil.copytree(before / "supernet", copy)
    with pytest.raises(SystemExit) as left:
        main(f"search --resume-from {before} {flags.format(copy=copy)}".split())
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert message.format(before=before) in error
    assert error.count("\n") == 1


def _arrays(path):
    with np.load(path) as file:
        return dict(file)
