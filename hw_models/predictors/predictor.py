"""Predictors of throughput: an ensemble of fitted models, as a differentiable function of the architecture.

A model says the logarithm of the throughput, standardised, so what is predicted is positive for any input; EH-DNAS
(Jiang et al., 2021, https://arxiv.org/abs/2111.12299) standardises the throughput itself, and weights imported from
it keep that scale. The throughput may be any positive figure of which more is better.
Shapes: K members, N networks. `predict_throughput` takes one architecture; batch it with `jax.vmap`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from hw_models.accelerator.network import DartsNetwork
from hw_models.predictors.models import Weights, score

SCALES = ("log", "linear")
LEAST_THROUGHPUT = 1.0
"""Images/s below which a predictor of linear scale is cut off; there its gradient is 0."""
_LEAST_VARIANCE = 1e-12
_CHUNK = 4096


@dataclasses.dataclass(frozen=True)
class PredictorNotes:
    """What a predictor was fitted to.

    Attributes:
        paradigm: `generic`, `pipeline`, or another name of what is predicted.
        fpga: Or other hardware.
        network: Size of the networks; None: unknown.
        networks: How many it was fitted to; 0: unknown.
        held_out_error: Mean relative error on networks left out; None: unknown.
        source: In words: data set, versions.
    """

    paradigm: str = ""
    fpga: str = ""
    network: DartsNetwork | None = None
    networks: int = 0
    held_out_error: float | None = None
    source: str = ""


@struct.dataclass
class ThroughputPredictor:
    """An ensemble of models of one kind.

    Attributes:
        weights: Of the members, leaves [K, ...].
        mean: float32[], of the (log) throughputs that the models were fitted to.
        deviation: float32[], likewise; 1 for a lookup.
        kind: static, `mlp`, `embedding` or `lookup`.
        scale: static, `log`, or `linear` for imported weights: mean + deviation * model, cut off at
            `LEAST_THROUGHPUT`.
        notes: static, what it was fitted to.
    """

    weights: Weights
    mean: jax.Array
    deviation: jax.Array
    kind: str = struct.field(pytree_node=False)
    scale: str = struct.field(pytree_node=False, default="log")
    notes: PredictorNotes = struct.field(pytree_node=False, default=PredictorNotes())

    @property
    def members(self) -> int:
        """K."""
        return self.weights.layers[0].bias.shape[0]


@struct.dataclass
class Prediction:
    """What an ensemble says; leaves float32[].

    Attributes:
        throughput: Mean of the members.
        spread: Standard deviation of the members over their mean; 0 of one member.
    """

    throughput: jax.Array
    spread: jax.Array


def predict_throughput(predictor: ThroughputPredictor, architecture: jax.Array) -> Prediction:
    """Predicts the throughput of an architecture.

    Args:
        predictor: The predictor.
        architecture: int[28], a code, or float32[28, 8], a distribution over operations for each edge such as
            `softmax(alpha)`; at 0 and 1 it is the code. Distributions in which two edges lead to each node, as in a
            code, are nearest to what a predictor was fitted to.

    Returns:
        The prediction; differentiable in a distribution.

    Raises:
        ValueError: `architecture` is neither.
    """
    found = _member_throughputs(predictor, jnp.asarray(architecture))
    mean = jnp.mean(found)
    if predictor.members == 1:
        return Prediction(mean, jnp.zeros_like(mean))
    return Prediction(mean, jnp.sqrt(jnp.var(found / mean) + _LEAST_VARIANCE))


@jax.jit
def predict_throughputs(predictor: ThroughputPredictor, codes: jax.Array) -> Prediction:
    """Predicts the throughput of many networks, codes int[N, 28] -> leaves float32[N], in chunks."""
    return jax.lax.map(lambda code: predict_throughput(predictor, code), codes, batch_size=_CHUNK)


def _member_throughputs(predictor: ThroughputPredictor, architecture: jax.Array) -> jax.Array:
    scores = jax.vmap(lambda weights: score(weights, architecture, kind=predictor.kind))(predictor.weights)
    scaled = predictor.mean + predictor.deviation * scores
    return jnp.exp(scaled) if predictor.scale == "log" else jnp.maximum(scaled, LEAST_THROUGHPUT)
