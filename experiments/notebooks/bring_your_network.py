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
# # Bring your own network
#
# A network that is trained already gets early exits, thresholds and clocks, and its weights stay as they are. Here it
# is a small flax network, given as a list of stages; `hadas price` and `hadas exits` take any ONNX classifier.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from IPython.display import Image

import hw_models
from hadas_jax import commands
from hadas_jax.data import LabelledImages, load_dataset
from hadas_jax.deploy.pricing import price_network
from hadas_jax.report.any_network import print_price
from hadas_jax.report.console import new_console
from hadas_jax.settings import ExitsSettings

SMOKE = os.environ.get("HADAS_JAX_SMOKE") == "1"  # the smallest sizes: is everything in order?
PLACE = Path("runs/any_network")
PLACE.parent.mkdir(parents=True, exist_ok=True)
jax.devices()

# %% [markdown]
# ## A network
#
# Four convolutions for handwritten digits, trained on the training part of the data set alone: the same division is
# used below, so no exit, threshold or choice is judged on images that the network has seen.


# %%
class Network(nn.Module):
    """Stages that can be called one by one."""

    def setup(self) -> None:
        widths = (16, 32, 32, 64)
        self.convolutions = [nn.Conv(width, (3, 3)) for width in widths]
        self.last = nn.Dense(10)

    def stage(self, x: jax.Array, number: int) -> jax.Array:
        x = nn.relu(self.convolutions[number](x))
        return nn.max_pool(x, (2, 2), (2, 2)) if number == 1 else x

    def classify(self, x: jax.Array) -> jax.Array:
        return self.last(x.mean((1, 2)))

    def __call__(self, x: jax.Array) -> jax.Array:
        for number in range(4):
            x = self.stage(x, number)
        return self.classify(x)


data = load_dataset("digits", seed=0)
assert isinstance(data.train, LabelledImages)
images, labels = data.train.take(jnp.arange(data.train.count))
network = Network()
weights = network.init(jax.random.key(0), images[:1])
optimiser = optax.adam(2e-3)
steps = 20 if SMOKE else 1000


@jax.jit
def train(weights: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
    rows = jax.random.randint(key, (64,), 0, len(images))

    def loss(weights: Any) -> jax.Array:
        logits = network.apply(weights, images[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    updates, state = optimiser.update(jax.grad(loss)(weights), state)
    return optax.apply_updates(weights, updates), state


state = optimiser.init(weights)
for key in jax.random.split(jax.random.key(1), steps):
    weights, state = train(weights, state, key)

# %% [markdown]
# ## What it costs
#
# Counted from the function itself, layer by layer, at the highest clocks of a device and at its best for a deadline.

# %%
layers = hw_models.layers_of(network.apply, weights, images[:1])
price = price_network(layers, hw_models.load_device("raspberry-pi-4"), max_latency_s=[1e-3])
print_price(price, new_console(), title="network")

# %% [markdown]
# ## Exits and clocks
#
# Stages are functions of one array; an exit may follow each. What they give is computed once for all images and kept,
# and heads are trained on that. Then all subsets of exits are tried at all clocks, exactly.


# %%
def stage(number: int) -> Callable[[jax.Array], Any]:
    return lambda x: network.apply(weights, x, number, method="stage")


stages = [*map(stage, range(4)), lambda x: network.apply(weights, x, method="classify")]
settings = ExitsSettings.of(
    model="network",
    dataset="digits",
    device="raspberry-pi-4",
    mean=data.normalisation[0],
    deviation=data.normalisation[1],
    head_epochs=2 if SMOKE else 40,
    front_size=8 if SMOKE else 64,
)
result = commands.exits_of_stages(stages, settings, workdir=PLACE, overwrite=True)
Image(PLACE / "front.png")

# %% [markdown]
# ## One network of the front, and what a device needs of it
#
# The work directory is that of a search: whatever follows a search works here too. The export has a file for each
# segment, and is compared with the stages as they are.

# %%
commands.select_network(PLACE, prefer="knee", overwrite=True)
check = commands.export(PLACE, overwrite=True)
check.is_equal, check.accuracy

# %% [markdown]
# An ONNX file goes the same way from the command line: `hadas price model.onnx --device tx2-gpu`, then
# `hadas exits model.onnx --dataset folder:images --device tx2-gpu --workdir runs/mine`, and
# `hadas export runs/mine --format onnx` cuts the model itself. See docs/any_network.md.

# %%
np.round([design.test["deployable"].energy_j * 1e3 for design in result.front("deployable")], 3)
