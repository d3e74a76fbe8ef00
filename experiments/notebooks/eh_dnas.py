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
# # EH-DNAS: the hardware in the loss
#
# A differentiable search trains all operations of a cell at once and descends the architecture along the gradient of
# the loss. EH-DNAS puts the throughput of an accelerator into that loss. This notebook searches on handwritten digits,
# prices what was found beside published networks, and trains it from scratch.

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
from IPython.display import Image

from hadas_jax.commands.dnas import price, retrain, search
from hadas_jax.commands.reports import report
from hadas_jax.settings import DnasSettings, RetrainSettings

SMOKE = os.environ.get("HADAS_JAX_SMOKE") == "1"  # the smallest sizes: is everything in order?
jax.devices()

# %% [markdown]
# ## Search
#
# Half of the training images is for the weights, half for the architecture. A predictor of the accelerator's throughput
# is fitted to random networks first; the loss takes the logarithm of its answer, times `weight`. With a device of
# `hadas devices list` as `hardware`, its roofline model needs no predictor.

# %%
settings = DnasSettings.of(
    dataset="digits",
    hardware="generic",
    weight=0.3,  # of the throughput in the loss
    order="first",
    epochs=1 if SMOKE else 40,
    channels=2 if SMOKE else 8,
    cells=3 if SMOKE else 5,
    predictor_samples=2000 if SMOKE else 200_000,
    predictor_kind="lookup" if SMOKE else "mlp",
)
found = search(settings, workdir="runs/dnas", overwrite=True)

# %% [markdown]
# Both cells of the network. An edge is an operation, a box a feature map:

# %%
Image("runs/dnas/genotype.png", width=900)

# %% [markdown]
# How alpha got there: the share of each operation on each edge.

# %%
report(["runs/dnas"], figures="runs/dnas/figures")
Image("runs/dnas/figures/alpha.png", width=900)

# %% [markdown]
# ## Price
#
# The same network by E2E-Perf as a pipeline and on one generic engine, and on two devices; then the network that DARTS
# found without hardware in mind.

# %%
prices = price("runs/dnas/genotype.json", devices=["agx-xavier-gpu", "raspberry-pi-4"], rows=3)

# %%
prices_of_darts = price("DARTS_V2", devices=["agx-xavier-gpu", "raspberry-pi-4"], rows=3)

# %% [markdown]
# ## Train from scratch

# %%
retrain_settings = RetrainSettings.of(
    genotype="runs/dnas/genotype.json",
    epochs=1 if SMOKE else 40,
    channels=2 if SMOKE else 16,
    cells=3 if SMOKE else 8,
)
trained = retrain(retrain_settings, workdir="runs/dnas-retrained", overwrite=True)
