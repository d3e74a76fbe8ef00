"""Accuracy of the network of a genotype.

Shapes: N images.
"""

from functools import partial

import jax
import jax.numpy as jnp

from hadas_jax.data import LabelledImages
from hadas_jax.memory import memory_named
from hadas_jax.spaces.genotypes import Genotype
from hadas_jax.supernet import Tree
from hadas_jax.supernet.darts.derived import apply_derived
from hw_models.accelerator.network import DartsNetwork

_PIXELS = 2**17  # of a batch: 128 images of 32x32


def derived_accuracy(
    network: DartsNetwork,
    genotype: Genotype,
    weights: Tree,
    statistics: Tree,
    data: LabelledImages,
    *,
    batch: int | None = None,
    dtype: str = "float32",
) -> float:
    """Returns the share of images that a trained network puts into their class.

    Args:
      network: its size.
      genotype: its cells.
      weights: trained.
      statistics: of its batch norms.
      data: N images with their labels.
      batch: images at once; None: 128 of 32x32 pixels, and otherwise as many pixels.
      dtype: what the network computes in, float32 or bfloat16.

    Raises:
      ValueError: there is too little memory for a batch.
    """
    size = min(batch or max(_PIXELS // network.image_size**2, 1), data.count)
    with memory_named("--eval-batch", size, "images"):
        return float(jnp.mean(_is_right(network, genotype, size, dtype, weights, statistics, data), dtype=jnp.float32))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _is_right(
    network: DartsNetwork,
    genotype: Genotype,
    batch: int,
    dtype: str,
    weights: Tree,
    statistics: Tree,
    data: LabelledImages,
) -> jax.Array:
    """Returns bool[N]."""

    def one(start: jax.Array) -> jax.Array:
        images, labels = data.take(jnp.minimum(start + jnp.arange(batch), data.count - 1))
        logits = apply_derived(network, genotype, weights, statistics, images.astype(jnp.dtype(dtype)))
        return jnp.argmax(logits, axis=-1) == labels

    return jax.lax.map(one, jnp.arange(0, data.count, batch)).reshape(-1)[: data.count]
