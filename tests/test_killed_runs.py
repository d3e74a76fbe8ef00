"""A run that is killed without warning again and again, and resumed."""

import pytest
from tiny_hadas import finished, killed, started
from tiny_search import FLAGS

MOMENTS = [r"supernet: \d+/", r"exits: \d+/", r"search: \d+/", "thresholds: starts", "test: starts"]


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_with_the_same_front(finished_search, tmp_path):
    workdir, arguments = tmp_path / "run", FLAGS.split()
    for moment in MOMENTS:
        killed(started("search", "--workdir", workdir, *arguments), moment)
        assert not (workdir / "front.csv").exists()
        arguments = ["--resume"]
    finished(started("search", "--workdir", workdir, "--resume"))
    for name in ("front.csv", "metrics.jsonl"):
        assert (workdir / name).read_bytes() == (finished_search[0] / name).read_bytes()
