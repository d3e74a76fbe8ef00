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
# # Search throughput
#
# Networks, exits and cost models are pure functions of arrays, so whole populations are evaluated in one call. This
# notebook measures how many candidates a second that gives on this machine: cost models, exact inner search,
# generations of NSGA-II, and networks of the supernet on images.

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
import jax.numpy as jnp
import numpy as np
from IPython.display import Image

from hadas_jax.commands import bench
from hadas_jax.data import load_dataset
from hadas_jax.evaluation import Evaluator
from hadas_jax.search import sample
from hadas_jax.spaces import load_space, workload
from hadas_jax.supernet import initialise
from hw_models import default_point, load_device, network_cost

SMOKE = os.environ.get("HADAS_JAX_SMOKE") == "1"  # the smallest sizes: is everything in order?
PLACE = Path("runs")
PLACE.mkdir(exist_ok=True)
jax.devices()

# %% [markdown]
# ## The parts of a search
#
# `hadas bench` as a call. It measures each part at several population sizes; where pymoo is installed, its NSGA-II runs
# beside it on the same functions.

# %%
rows = bench(
    PLACE / "bench.json",
    populations=(64, 256) if SMOKE else (64, 1024, 16384),
    rounds=1 if SMOKE else 3,
    peer_limit=0 if SMOKE else 1024,
    overwrite=True,
)

# %%
Image(PLACE / "bench.png", width=800)

# %% [markdown]
# ## What one network costs, and a thousand at once
#
# A cost model is written for one backbone and one operating point. `jax.vmap` makes a population of it.

# %%
space = load_space("attentivenas")
device = load_device("agx-xavier-gpu")


def price(genome: jax.Array) -> jax.Array:
    """Latency in s and energy in J of one backbone at the highest clocks, float32[2]."""
    cost = network_cost(workload(space, space.decode(genome)), device, default_point(device))
    return jnp.stack([cost.latency_s, cost.energy_j])


price_one, price_all = jax.jit(price), jax.jit(jax.vmap(price))
genomes = sample(jax.random.key(0), jnp.array(space.codec.cardinalities), size=64 if SMOKE else 1024)
one, all_of_them = price_one(genomes[0]), price_all(genomes)  # compiles both
print(f"{1e3 * one[0]:.2f} ms, {1e3 * one[1]:.1f} mJ; the population takes {all_of_them[:, 0].mean() * 1e3:.2f} ms")

# %%
# %timeit price_one(genomes[0]).block_until_ready()
# %timeit price_all(genomes).block_until_ready()

# %% [markdown]
# ## A population of networks on images
#
# All backbones share weights, so a population is judged by one compiled function, with all exits in one pass: on a CPU
# one backbone after another, skipping what it does not use, elsewhere a few side by side under `vmap`. The weights here
# are untrained; speed does not mind.

# %%
digits = load_dataset("digits", seed=0)
small = load_space("digits").adapt(in_channels=1, classes=10, image_size=8)
parameters = initialise(small, jax.random.key(0))
judge = Evaluator(small, parameters, digits.calibration.images[None])
population = np.asarray(sample(jax.random.key(1), jnp.array(small.codec.cardinalities), size=4 if SMOKE else 32))
outcomes = judge(population, digits.validation)  # compiles
print("backbones, exits and classifier, images:", outcomes.correct.shape)

# %%
# %timeit -n 1 -r 3 judge(population, digits.validation)
