"""Batch norm folded into the layer before it: the same function with fewer layers.

With f = scale / sqrt(var + epsilon), f (W x - mean) + bias = (f W) x + (bias - f mean).
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.layers import Layer, Segment, Weights
from hadas_jax.supernet.elastic import BatchNorm

_BEFORE = ("conv", "depthwise", "linear")


def fold_batch_norm(segments: Sequence[Segment], weights: Weights) -> tuple[tuple[Segment, ...], Weights]:
    """Returns a network without batch norm; one without any is returned as it is.

    Args:
      segments: every batch norm follows a convolution or a linear layer, whose output nothing else takes.
      weights: of their layers.
    """
    kept = dict(weights)
    return tuple(_fold(segment, kept) for segment in segments), kept


def is_folded(segments: Sequence[Segment]) -> bool:
    """Whether a network has no batch norm."""
    return all(layer.kind != "batch_norm" for segment in segments for layer in segment.layers)


def _fold(segment: Segment, weights: Weights) -> Segment:
    """Folds within one segment; `weights` is changed."""
    layers: dict[str, Layer] = {}
    renamed: dict[str, str] = {}
    for layer in segment.layers:
        inputs = tuple(renamed.get(name, name) for name in layer.inputs)
        if layer.kind != "batch_norm":
            layers[layer.name] = Layer(layer.name, layer.kind, inputs, layer.stride, layer.padding)
            continue
        (before,) = inputs
        if layers[before].kind not in _BEFORE:
            raise ValueError(f"{layer.name}: expected a convolution or linear layer before, got {layers[before].kind}")
        norm = {name: np.asarray(leaf, np.float64) for name, leaf in weights.pop(layer.name).items()}
        factor = norm["scale"] / np.sqrt(norm["var"] + BatchNorm.epsilon)
        kernel = np.asarray(weights[before]["kernel"], np.float64) * factor
        bias = np.asarray(weights[before].get("bias", np.zeros_like(factor)), np.float64)
        bias = norm["bias"] + factor * (bias - norm["mean"])
        weights[before] = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
        renamed[layer.name] = before
    return Segment(tuple(layers.values()), segment.takes, segment.features, segment.logits, segment.confidence)
