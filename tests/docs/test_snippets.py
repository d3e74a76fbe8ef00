"""The Python of every page runs as it stands there, block after block, in an empty folder."""

import shutil

import documents
import jax
import pytest

from hadas_jax.commands import search
from hadas_jax.methods import Settings

DOCS = documents.TOP / "docs"
SMALL = Settings(
    space="my_space.yaml", population=4, generations=2, elite_ratio=0.5, epochs=2, exit_epochs=2, batch=128, group=2
)
# Pages without preparation; the second ones search or train whole networks.
QUICK = ["accelerators", "bring_your_data", "bring_your_device", "hardware_models", "predictors", "search"]
WHOLE = ["bring_your_space", "eh_dnas", "training"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),  # users' code runs without our strictness
    ):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The work directory of a whole search of the space that docs/bring_your_space.md shows."""
    folder = tmp_path_factory.mktemp("first")
    (shown,) = (block for block in documents.blocks(DOCS / "bring_your_space.md") if block.language == "yaml")
    (folder / "my_space.yaml").write_text(shown.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        search(SMALL, workdir="first")
    return folder / "first"


def test_every_page_with_python_is_run_here():
    named = {
        f"{page.stem}" for page in DOCS.glob("*.md") if any(b.language == "python" for b in documents.blocks(page))
    }
    prepared = {"bring_your_cost_model", "checkpoints", "data", "deploy", "index", "report", "retraining"}
    assert named == {*QUICK, *WHOLE, *prepared}


@pytest.mark.parametrize("page", QUICK)
def test_a_page_runs(page):
    documents.run_page(DOCS / f"{page}.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", WHOLE)
def test_a_page_that_trains_networks_runs(page):
    documents.run_page(DOCS / f"{page}.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["index", "bring_your_cost_model"])
def test_a_page_that_goes_on_from_a_search_runs(page, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "runs" / "first")
    documents.run_page(DOCS / f"{page}.md")
