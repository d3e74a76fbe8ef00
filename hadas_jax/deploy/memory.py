"""Peak memory of the activations of a static network, and its weights, from its layers.

The rules are those of `hadas_jax.spaces.footprint`: batch norm and activations are fused into the layer before them,
and images count at the backbone's resolution. Segments run one after the other; what a segment takes is free as soon as
no layer of it needs it any more. Counts are for one sample, in elements.
"""

import math
from collections.abc import Sequence

from hadas_jax.deploy.layers import Segment, Shapes, Weights

_FUSED = ("batch_norm", "swish", "relu", "leaky_relu", "hard_sigmoid")


def peak_elements(segments: Sequence[Segment], shapes: Shapes) -> int:
    """Returns the most elements that are in memory at once, in any segment.

    Args:
        segments: The segments of the network.
        shapes: Of `hadas_jax.deploy.layers.output_shapes`.
    """
    return max(_peak_of(segment, shapes) for segment in segments)


def _peak_of(segment: Segment, shapes: Shapes) -> int:
    layers = segment.layers
    buffers = {segment.takes: segment.takes}  # of outputs by layer: the layer that wrote it first
    if layers[0].kind == "resize":
        buffers[layers[0].name], layers = layers[0].name, layers[1:]
    for layer in layers:
        buffers[layer.name] = buffers[layer.inputs[0]] if layer.kind in _FUSED else layer.name
    needed_until = {buffers[name]: row for row, layer in enumerate(layers) for name in layer.inputs}
    needed_until |= dict.fromkeys((buffers[name] for name in segment.outputs.values()), len(layers))
    taken, peak = [buffers[layers[0].inputs[0]]], 0
    for row, layer in enumerate(layers):
        if buffers[layer.name] == layer.name:
            taken.append(layer.name)
        peak = max(peak, sum(math.prod(shapes[name]) for name in taken))
        taken = [name for name in taken if needed_until.get(name, -1) > row]
    return peak


def weight_elements(weights: Weights) -> int:
    """Returns the number of weights of a network; that of resizing is none."""
    return sum(leaf.size for own in weights.values() for name, leaf in own.items() if name != "rows")
