import pytest

from hadas_jax.commands.hadas import search
from hadas_jax.evaluation import Evaluator


@pytest.fixture(scope="module")
def kept(finished, settings, tmp_path_factory):
    """(device, folder of the run) -> the run's result, on the finished run's supernet with a folder of outcomes."""
    outcomes = tmp_path_factory.mktemp("kept") / "outcomes"

    def run(device, workdir):
        supernet = str(finished[0] / "supernet")
        changed = settings.replace(checkpoint=supernet, device=device, outcomes=str(outcomes))
        return search(changed, workdir=workdir)

    return run


def test_a_search_on_kept_outcomes_finds_the_same_and_judges_nothing(finished, kept, tmp_path, monkeypatch):
    kept("tx2-gpu", tmp_path / "first")
    assert (tmp_path / "first" / "front.csv").read_bytes() == (finished[0] / "front.csv").read_bytes()

    def refuse(self, genomes, data):
        raise AssertionError("a backbone is judged again")

    monkeypatch.setattr(Evaluator, "__call__", refuse)
    kept("tx2-gpu", tmp_path / "second")
    assert (tmp_path / "second" / "front.csv").read_bytes() == (finished[0] / "front.csv").read_bytes()
