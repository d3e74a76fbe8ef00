"""The first convolutions of a DARTS network, with batch norm of a learned scale and shift, by the batch's statistics.

`cifar` is one 3x3 convolution, which both inputs of the first cell read; `imagenet` three of stride 2, of which the
first cell reads the last two.
Shapes: B batch, H, W image, C channels.
"""

import jax
import jax.numpy as jnp

from hadas_jax.supernet.convolution import conv
from hadas_jax.supernet.darts.norm import standardise
from hadas_jax.supernet.tree import Tree
from hw_models.accelerator.network import DartsNetwork


def stem_convolutions(network: DartsNetwork) -> tuple[tuple[int, int, int], ...]:
    """Returns channels read, channels written and stride of each convolution."""
    read, channels = network.in_channels, network.channels
    if network.stem == "cifar":
        return ((read, 3 * channels, 1),)
    return ((read, channels // 2, 2), (channels // 2, channels, 2), (channels, channels, 2))


def initialise_stem(network: DartsNetwork, key: jax.Array) -> Tree:
    """Returns `conv_0`, ... with `kernel` float32[3, 3, C, C'], `scale` and `bias` float32[C']."""
    sizes = stem_convolutions(network)
    weights = {}
    keys = jax.random.split(key, len(sizes))
    for index, (read, written, _) in enumerate(sizes):
        bound = (9 * read) ** -0.5
        weights[f"conv_{index}"] = {
            "kernel": jax.random.uniform(keys[index], (3, 3, read, written), minval=-bound, maxval=bound),
            "scale": jnp.ones(written),
            "bias": jnp.zeros(written),
        }
    return weights


def apply_stem(network: DartsNetwork, weights: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps images [B, H, W, C] to the two inputs of the first cell, [C', H', W', B]."""
    outputs = []
    x = images
    for index, (_, _, stride) in enumerate(stem_convolutions(network)):
        layer = weights[f"conv_{index}"]
        y = conv(jax.nn.relu(x) if index else x, layer["kernel"], stride=stride, padding=1)
        y = standardise(y.transpose(3, 1, 2, 0))
        y = y * layer["scale"][:, None, None, None] + layer["bias"][:, None, None, None]
        outputs.append(y)
        x = y.transpose(3, 1, 2, 0)
    return outputs[max(len(outputs) - 2, 0)], outputs[-1]
