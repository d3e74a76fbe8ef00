import asyncio
import os
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "experiments" / "notebooks"
NAMES = ("bring_your_device", "eh_dnas", "hadas_search", "search_throughput")


def _content(notebook):
    """Cells and what a notebook says of itself; identifiers of cells are drawn anew by every conversion."""
    cells = [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]
    return cells, {name: notebook.metadata.get(name) for name in ("accelerator", "kernelspec")}


def test_every_notebook_is_one_of_these_four():
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
    """The notebooks after a run in smoke mode, or its error; two at a time, compiled code not optimised."""
    own = {
        "HADAS_JAX_SMOKE": "1",
        "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython")),
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }

    async def run(name, turns):
        notebook, place = jupytext.read(NOTEBOOKS / f"{name}.ipynb"), tmp_path_factory.mktemp(name)
        resources = {"metadata": {"path": str(place)}}
        client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources)
        async with turns:
            return await client.async_execute(env=os.environ | own)

    async def run_all(names):
        turns = asyncio.Semaphore(2)
        return await asyncio.gather(*(run(name, turns) for name in names), return_exceptions=True)

    names = ("hadas_search", "eh_dnas", "search_throughput", "bring_your_device")  # the last one compiles little anew
    return dict(zip(names, asyncio.run(run_all(names)), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_top_to_bottom_and_shows_its_pictures(executed, name):
    notebook = executed[name]
    if isinstance(notebook, Exception):
        raise notebook
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [cell.source for cell in cells if any("image/png" in output.get("data", {}) for output in cell.outputs)]
    assert shown == [cell.source for cell in cells if "Image(" in cell.source]
    assert shown
    errors = [output.text for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    assert errors == []
