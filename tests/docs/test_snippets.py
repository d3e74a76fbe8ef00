"""The Python of every page runs as it stands there, block after block, in an empty folder.

What a page takes as given, such as a finished search, is there before; sizes are as small as can be.
"""

import shutil

import documents
import jax
import numpy as np
import pytest
from fake_tfds import write_fake_set
from original_checkpoint import reference_arrays

from hadas_jax.commands.dnas import retrain
from hadas_jax.commands.hadas import search
from hadas_jax.commands.networks import export, materialise_network, select_network
from hadas_jax.settings import RetrainSettings, SearchSettings

DOCS = documents.TOP / "docs"
SMALL = SearchSettings.of(
    space="my_space.yaml", population=4, generations=2, elite_ratio=0.5, epochs=2, exit_epochs=2, batch=128, group=2
)
# Pages without preparation; the second ones search or train whole networks.
QUICK = ["accelerators", "bring_your_data", "hardware_models", "predictors", "search"]
WHOLE = ["bring_your_device", "bring_your_space", "eh_dnas", "training"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),  # users' code runs without our strictness
    ):
        yield


@pytest.fixture(scope="session")
def space_file(tmp_path_factory):
    """The space that docs/bring_your_space.md shows."""
    (shown,) = (block for block in documents.blocks(DOCS / "bring_your_space.md") if block.language == "yaml")
    path = tmp_path_factory.mktemp("space") / "my_space.yaml"
    path.write_text(shown.text)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, space_file):
    """The work directory of a whole search of this space."""
    workdir = tmp_path_factory.mktemp("search") / "first"
    search(SMALL.replace(space=str(space_file)), workdir=workdir)
    return workdir


def test_every_page_with_python_is_run_here():
    with_python = [
        p.stem for p in DOCS.glob("*.md") if any(block.language == "python" for block in documents.blocks(p))
    ]
    prepared = ["bring_your_cost_model", "checkpoints", "data", "deploy", "index", "report", "retraining"]
    assert sorted(with_python) == sorted([*QUICK, *WHOLE, *prepared])


@pytest.mark.parametrize("page", QUICK)
def test_a_page_runs(page):
    documents.run_page(DOCS / f"{page}.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", WHOLE)
def test_a_page_that_trains_networks_runs(page, space_file, tmp_path):
    shutil.copy(space_file, tmp_path)
    documents.run_page(DOCS / f"{page}.md")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "place"), [("index", "first"), ("bring_your_cost_model", "first"), ("report", "mine")]
)
def test_a_page_that_goes_on_from_a_search_runs(page, place, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "runs" / place)
    documents.run_page(DOCS / f"{page}.md")


@pytest.mark.slow
def test_the_page_on_deployment_runs(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "runs" / "digits")
    select_network("runs/digits")
    materialise_network("runs/digits")
    (tmp_path / "runs" / "tuned").mkdir()
    export("runs/digits/network", format="onnx", output="runs/tuned/export")
    images = np.zeros((3, 8, 8, 1), np.float32)
    ran = documents.run_page(DOCS / "deploy.md", {"images": images})
    assert len(ran["labels"]) == len(ran["exits"]) == 3


@pytest.mark.slow
def test_the_page_on_retraining_runs():
    retrain(RetrainSettings.of(genotype="OURS_ACC", channels=2, cells=3, epochs=1, batch=128), workdir="runs/ours")
    ran = documents.run_page(DOCS / "retraining.md", {"images": np.zeros((3, 8, 8, 1), np.float32)})
    assert ran["logits"].shape == (3, 10)


@pytest.mark.slow
def test_the_page_on_data_runs(tmp_path):
    counts = {"train": 400, "validation": 100}
    write_fake_set(tmp_path / "DIR", "imagenet2012", counts=counts, classes=4, size=230)
    ran = documents.run_page(DOCS / "data.md")
    assert ran["images"].shape == (256, 224, 224, 3)


@pytest.mark.slow
def test_the_page_on_checkpoints_runs():
    torch = pytest.importorskip("torch")
    arrays = {name: torch.from_numpy(np.asarray(array)) for name, array in reference_arrays().items()}
    torch.save({"state_dict": arrays}, "theirs.pth.tar")
    torch.save(arrays, "supernet.pth.tar")
    ran = documents.run_page(DOCS / "checkpoints.md")
    assert ran["trained"].space.classes == 100
