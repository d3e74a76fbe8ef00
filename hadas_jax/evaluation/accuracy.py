"""What backbones predict at every exit, population by population.

Batch-norm statistics belong to a backbone and are re-estimated on training images before it is judged.
Shapes: P backbones, G genes, E exits, N images, K classes.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.data import LabelledImages
from hadas_jax.spaces.mbconv import MBConvSpace
from hadas_jax.supernet.network import Parameters, apply, estimate_batch_stats


@struct.dataclass
class Outcomes:
    """What happens to each image at each exit; the final classifier is the last row.

    Attributes:
      correct: bool[..., E + 1, N].
      confidence: float32[..., E + 1, N], the largest probability.
      entropy: float32[..., E + 1, N], of the probabilities, in nats.
      learned: float32[..., E + 1, N], the head's own confidence as a logit; +inf for the final classifier.
    """

    correct: jax.Array
    confidence: jax.Array
    entropy: jax.Array
    learned: jax.Array


def outcomes(
    space: MBConvSpace,
    params: Parameters,
    genome: jax.Array,
    *,
    data: LabelledImages,
    calibration: jax.Array,
    batch: int = 64,
) -> Outcomes:
    """Judges one backbone, `batch` images at a time; see `population_outcomes`."""
    backbone = space.decode(genome)
    stats = estimate_batch_stats(space, params, backbone, calibration)
    size = data.images.shape[0]
    batches = -(-size // batch)
    batch = -(-size // batches)
    padded = jnp.pad(data.images, ((0, batches * batch - size), (0, 0), (0, 0), (0, 0)))
    parts = padded.reshape(batches, batch, *data.images.shape[1:])
    logits = jax.lax.map(lambda images: apply(space, params, stats, backbone, images), parts)
    exits = jnp.moveaxis(logits.exits, 0, 1).reshape(-1, batches * batch, space.classes)[:, :size]
    confidence = jnp.moveaxis(logits.confidence, 0, 1).reshape(-1, batches * batch)[:, :size]
    log_probabilities = jax.nn.log_softmax(exits)
    probabilities = jnp.exp(log_probabilities)
    return Outcomes(
        correct=jnp.argmax(exits, axis=-1) == data.labels[None],
        confidence=jnp.max(probabilities, axis=-1),
        entropy=-jnp.sum(probabilities * log_probabilities, axis=-1),
        learned=jnp.concatenate([confidence, jnp.full((1, size), jnp.inf, jnp.float32)]),
    )


@partial(jax.jit, static_argnames=("space", "group"))
def population_outcomes(
    space: MBConvSpace,
    params: Parameters,
    genomes: jax.Array,
    *,
    data: LabelledImages,
    calibration: jax.Array,
    group: int = 1,
) -> Outcomes:
    """Judges many backbones, `group` of them side by side.

    Args:
      space: static.
      params: shared weights.
      genomes: int32[P, G].
      data: the images to judge on.
      calibration: float32[batches, B, H, W, channels], training images for the batch-norm statistics.
      group: static; 1 keeps a CPU's caches warm, more fill an accelerator and use more memory.

    Returns:
      Outcomes with leading axis P.
    """
    judge = partial(outcomes, space, params, data=data, calibration=calibration)
    return jax.lax.map(judge, genomes, batch_size=group if group > 1 else None)
