# ---
# jupyter:
#   accelerator: GPU
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: accelerator,colab,kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # HADAS: backbone, early exits and clocks together
#
# A search finds neural networks for an edge device: which backbone, after which blocks a sample may stop, and at which
# clocks the device runs. This notebook trains a weight-sharing supernet on handwritten digits, searches it for the GPU
# of a Jetson AGX Xavier, chooses one network under a budget, and looks at what it does.
#
# Choose a GPU or TPU under *Runtime, Change runtime type*; a CPU works too and takes a few minutes.

# %%
# Installs the package where it is missing, as on Colab. PACKAGE is what pip takes: the name, a folder with a clone, or
# "git+https://..." with the address of the repository, as long as the name is not on PyPI.
import importlib.util
import shutil
import subprocess
import sys

PACKAGE = "hadas-jax"
if importlib.util.find_spec("hadas_jax") is None:
    is_tpu = importlib.util.find_spec("libtpu") is not None
    runtime = "jax[cuda12]" if shutil.which("nvidia-smi") else "jax[tpu]" if is_tpu else "jax"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", PACKAGE, runtime], check=True)

# %%
import os

import jax
from IPython.display import Image, display

from hadas_jax.commands.hadas import search
from hadas_jax.commands.networks import operating_points, select_network, show_network
from hadas_jax.commands.reports import report
from hadas_jax.report.search import levels_table
from hadas_jax.settings import SearchSettings

SMOKE = os.environ.get("HADAS_JAX_SMOKE") == "1"  # the smallest sizes: is everything in order?
jax.devices()

# %% [markdown]
# ## Settings
#
# The flags of `hadas search` are the names that `SearchSettings.of` takes. Any device of `hadas devices list`, or a
# device file of your own, takes the place of this one; `dataset="npz:my_images.npz"` or `"folder:my_images"` takes that
# of the digits.

# %%
settings = SearchSettings.of(
    dataset="digits",
    device="agx-xavier-gpu",
    epochs=1 if SMOKE else 28,  # of the supernet
    exit_epochs=1 if SMOKE else 16,
    population=8 if SMOKE else 64,  # backbones in a generation
    generations=2 if SMOKE else 7,
)
settings

# %% [markdown]
# ## Search
#
# Four stages, each of which resumes where it was stopped: the supernet (largest and smallest network and two random
# ones in every step, which learn from the largest), exit heads after every block that may have one, the nested search,
# and thresholds. An outer NSGA-II breeds backbones; for the best of each generation an inner search goes through all
# sets of exits at all clocks.

# %%
result = search(settings, workdir="runs/notebook", overwrite=True)

# %% [markdown]
# The table holds networks of a few levels of accuracy: the static one at the highest and at the best clocks (+ DVFS),
# networks with exits, and with exits and clocks, with what they save against both static ones and how their accuracy
# differs, with its 95 % interval. **Ideal** stops every sample at the first exit that is right, which needs the label:
# an upper bound. The others compare a confidence with thresholds that were set on other samples than those of the
# table.

# %%
levels_table(result)

# %%
Image("runs/notebook/front.png", width=900)

# %% [markdown]
# `hadas report` makes a page of its own with everything in it, `runs/notebook/report.html`, and all figures. Here the
# cheapest deployable network within a point of the best accuracy: its energy and latency over the clocks; the ring is
# its own setting.

# %%
report(["runs/notebook"], figures="runs/notebook/figures")
Image("runs/notebook/figures/clocks.png", width=900)

# %% [markdown]
# ## One network under a budget

# %%
budget = None if SMOKE else 0.3
network = select_network("runs/notebook", max_latency_ms=budget, prefer="knee", overwrite=True)

# %%
show_network("runs/notebook", plot="runs/notebook/network.png", overwrite=True)
display(Image("runs/notebook/network.png", width=900))

# %% [markdown]
# The network stays and the clocks change: for each deadline the clocks of least energy, for each power cap those of
# least latency.

# %%
points = operating_points("runs/notebook")

# %% [markdown]
# Next: `hadas materialise`, `fine-tune` and `export` make a file for onnxruntime of it (`docs/deploy.md`);
# `bring_your_device.ipynb` searches for a device that you measured.
