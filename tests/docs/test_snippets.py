"""The Python of every page runs as it stands there, block after block, in an empty folder.

What a page takes as given, such as a finished search, is there before; sizes are as small as can be.
"""

import contextlib
import shutil

import documents
import jax
import numpy as np
import pytest
from fake_tfds import write_fake_set
from original_checkpoint import reference_arrays

from hadas_jax.commands.dnas import retrain
from hadas_jax.commands.networks import export, materialise_network, select_network
from hadas_jax.settings import RetrainSettings

DOCS = documents.TOP / "docs"
# Pages without preparation; the second ones search or train whole networks.
QUICK = ["accelerators", "any_network", "bring_your_data", "hardware_models", "predictors", "search"]
WHOLE = ["bring_your_device", "eh_dnas", "training"]


@contextlib.contextmanager
def lenient():
    """Users' code runs without our strictness."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with lenient():
        yield


@pytest.fixture(scope="session")
def page_on_spaces(tmp_path_factory):
    """What docs/bring_your_space.md leaves, which searches its space: its folder and its names."""
    place = tmp_path_factory.mktemp("space")
    with contextlib.chdir(place), lenient():
        return place, documents.run_page(DOCS / "bring_your_space.md")


@pytest.fixture(scope="session")
def finished(page_on_spaces):
    """The work directory of this search."""
    return page_on_spaces[0] / "runs" / "my-space"


def test_every_page_with_python_is_run_here():
    with_python = [
        p.stem for p in DOCS.glob("*.md") if any(block.language == "python" for block in documents.blocks(p))
    ]
    prepared = ["bring_your_cost_model", "checkpoints", "data", "deploy", "index", "report", "retraining"]
    assert sorted(with_python) == sorted([*QUICK, *WHOLE, *prepared, "bring_your_space"])


@pytest.mark.parametrize("page", QUICK)
def test_a_page_runs(page):
    documents.run_page(DOCS / f"{page}.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", WHOLE)
def test_a_page_that_trains_networks_runs(page, page_on_spaces, tmp_path):
    shutil.copy(page_on_spaces[0] / "my_space.yaml", tmp_path)
    documents.run_page(DOCS / f"{page}.md")


@pytest.mark.slow
def test_the_page_on_spaces_runs(page_on_spaces):
    place, names = page_on_spaces
    assert names["result"].backbones > 1
    assert (place / "runs" / "my-space" / "front.csv").is_file()


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
