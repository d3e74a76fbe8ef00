import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from compiling import XLA_FLAGS

jupytext = pytest.importorskip("jupytext")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "experiments" / "notebooks"
NAMES = ("bring_your_device", "bring_your_network", "eh_dnas", "hadas_search", "search_throughput")


def _content(notebook):
    """Cells and what a notebook says of itself; identifiers of cells are drawn anew by every conversion."""
    cells = [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]
    return cells, {name: notebook.metadata.get(name) for name in ("accelerator", "kernelspec")}


def test_every_notebook_is_one_of_these_five():
    for ending in ("py", "ipynb"):
        assert sorted(path.stem for path in NOTEBOOKS.glob(f"*.{ending}")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_what_its_source_makes(name):
    # A difference is mended by: jupytext --sync experiments/notebooks/*.py
    made, kept = (jupytext.read(NOTEBOOKS / f"{name}.{ending}") for ending in ("py", "ipynb"))
    assert _content(kept) == _content(made)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_outputs(name):
    cells = [cell for cell in jupytext.read(NOTEBOOKS / f"{name}.ipynb").cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebooks after a run in smoke mode, with what the runs said; two at a time, compiled code not optimised."""
    place = tmp_path_factory.mktemp("notebooks")
    own = {
        "HADAS_JAX_SMOKE": "1",
        "IPYTHONDIR": str(place / "ipython"),
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": XLA_FLAGS,
    }

    def run(name):
        copy = shutil.copy(NOTEBOOKS / f"{name}.ipynb", place)
        words = [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace", "--timeout=600", copy]
        ended = subprocess.run(words, cwd=place, env=os.environ | own, capture_output=True, text=True, check=False)
        return ended.returncode, ended.stderr, jupytext.read(copy)

    # The last one compiles little anew.
    names = ("hadas_search", "eh_dnas", "search_throughput", "bring_your_network", "bring_your_device")
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(run, names), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_top_to_bottom_and_shows_its_pictures(executed, name):
    code, said, notebook = executed[name]
    assert code == 0, said
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [cell.source for cell in cells if any("image/png" in output.get("data", {}) for output in cell.outputs)]
    assert shown == [cell.source for cell in cells if "Image(" in cell.source]
    assert shown
    errors = [output.text for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    assert errors == []
