"""A run that is killed without warning again and again, and resumed."""

import pytest
from tiny_hadas import finished, killed, started

SMALL = "--space tiny --population 4 --generations 2 --epochs 3 --exit-epochs 3 --front-size 6 --group 2"
MOMENTS = ["supernet: 9/", "exits: 9/", "search: 1/", "thresholds: starts", "test: starts"]


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_with_the_same_front(tmp_path):
    undisturbed, workdir = tmp_path / "undisturbed", tmp_path / "run"
    finished(started("search", "--workdir", undisturbed, *SMALL.split()))
    arguments = SMALL.split()
    for moment in MOMENTS:
        killed(started("search", "--workdir", workdir, *arguments), moment)
        assert not (workdir / "front.csv").exists()
        arguments = ["--resume"]
    finished(started("search", "--workdir", workdir, "--resume"))
    for name in ("front.csv", "metrics.jsonl"):
        assert (workdir / name).read_bytes() == (undisturbed / name).read_bytes()
