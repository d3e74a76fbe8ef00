# ---
# jupyter:
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
# # Bring your own device
#
# Three steps from a machine to a search on it: measure some networks, fit a device model to the measurements, search
# with it. Here the machine is the one that runs this notebook; on a board the first step is `hadas devices profile`
# there, and the CSV file is brought here.

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
from pathlib import Path

import jax
from IPython.display import Image

from hadas_jax.commands.devices import fit_device, list_devices, profile_machine, show_device
from hadas_jax.commands.hadas import search
from hadas_jax.settings import SearchSettings

SMOKE = os.environ.get("HADAS_JAX_SMOKE") == "1"  # the smallest sizes: is everything in order?
PLACE = Path("runs/device")
PLACE.mkdir(parents=True, exist_ok=True)
jax.devices()

# %% [markdown]
# ## What there is
#
# A device is a YAML file: clocks, rates, power, and of every figure whether it was measured, fitted or assumed.

# %%
list_devices()

# %% [markdown]
# ## Measure
#
# Sub-networks of the digits space, from the smallest to the largest, and single layers of each kind, each a few times
# in turn with a reference network. `resume=True` goes on where an earlier call was stopped. Where the power may be read
# (rails of a Jetson, counters of an x86 processor), it is measured too.

# %%
measurements = PLACE / "measurements.csv"
profile_machine(
    measurements,
    networks=4 if SMOKE else 30,
    layers=1 if SMOKE else 2,  # sizes of each kind of single layer
    rounds=1 if SMOKE else 3,
    batch=32,
    resume=measurements.exists(),
)

# %% [markdown]
# ## Fit
#
# The model is a roofline with clocks. Its parameters start from the nearest known device and move as far as the
# measurements say. The errors are of folds that the fit did not see.

# %%
device = PLACE / "my_device.yaml"
calibration = fit_device(measurements, device, base="x86-cpu", overwrite=True)

# %% [markdown]
# Predicted against measured:

# %%
Image(device.with_suffix(".png"), width=800)

# %%
show_device(str(device))

# %% [markdown]
# ## Search on it
#
# The file's path stands where the name of a device would.

# %%
settings = SearchSettings.of(
    device=str(device),
    epochs=1 if SMOKE else 28,
    exit_epochs=1 if SMOKE else 16,
    population=8 if SMOKE else 64,
    generations=2 if SMOKE else 7,
)
result = search(settings, workdir=PLACE / "search", overwrite=True)

# %%
Image(PLACE / "search" / "front.png", width=900)
