"""Training of the weight-sharing supernet by the sandwich rule with in-place distillation.

Every step trains the largest backbone, the smallest and a few sampled ones: the largest learns from the labels,
the others from its predictions (BigNAS, arXiv 2003.11142; AttentiveNAS, arXiv 2011.09011; AlphaNet, arXiv
2102.07954). One scan goes through them and sums their gradients, so one body is compiled, and memory holds one.
Shapes: T backbones per step, B batch, K classes.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from hadas_jax.loop import Metrics, Step
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace
from hadas_jax.supernet import Skip, Tree, apply_training, draw_drops
from hadas_jax.training.data_parallel import everywhere, split_batch
from hadas_jax.training.losses import DISTILLATIONS, label_loss
from hadas_jax.training.optimisers import TrainState, descend, global_norm
from hadas_jax.training.subnetworks import (
    POOL,
    SAMPLINGS,
    at_resolution,
    bestup_genomes,
    draw_genomes,
    sandwich_genomes,
)

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class SandwichOptions:
    """How a step of the sandwich rule trains.

    Attributes:
      sampled: sub-networks per step besides the largest and the smallest.
      sampling: `uniform`, or `bestup`: see `bestup_genomes`.
      candidates: of BestUp, for each sampled sub-network.
      label_smoothing: of the largest sub-network's targets.
      distillation: `kl`, or `alpha` for AlphaNet's adaptive divergence.
      dropout: rate before the classifier, of the largest sub-network alone.
      drop_connect: rate of whole residual branches, likewise.
      dtype: what features are computed in, float32 or bfloat16; weights, losses and gradients are float32.
      remat: keep the blocks' inputs alone for the gradient and compute each block twice: a third of the memory, and on
        CPUs also less time.
      cut: compute only the kernel taps and middle channels that a sub-network uses, each with compiled code of its own:
        less time for a step, twice as much for compiling; to be used with `remat`.
      mesh: devices that the batch is split over, see `batch_mesh`; None: one device.

    Raises:
      ValueError: a name or a number that is none of these.
    """

    sampled: int = 2
    sampling: str = "uniform"
    candidates: int = 3
    label_smoothing: float = 0.1
    distillation: str = "kl"
    dropout: float = 0.0
    drop_connect: float = 0.0
    dtype: str = "float32"
    remat: bool = False
    cut: bool = False
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        named = {"sampling": SAMPLINGS, "distillation": tuple(DISTILLATIONS), "dtype": DTYPES}
        for name, choices in named.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name, (lowest, highest) in {"sampled": (0, POOL), "candidates": (1, POOL)}.items():
            if not lowest <= getattr(self, name) <= highest:
                raise ValueError(f"{name}: expected {lowest} to {highest}, got {getattr(self, name)}")
        for name in ("label_smoothing", "dropout", "drop_connect"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 0 and below 1, got {getattr(self, name)}")


def sandwich_step(
    space: MBConvSpace, optimiser: optax.GradientTransformation, *, options: SandwichOptions | None = None
) -> Step:
    """Returns the step of the sandwich rule.

    Its state is a `TrainState` of backbone weights; its data a batch, images float32[B, H, W, channels]
    standardised and labels int32[B], see `resident` and `streamed`. Metrics: loss and accuracy of the largest
    sub-network, accuracy of the smallest, norm of the summed gradient before clipping.

    Args:
      space: the backbones to train; each runs at its own resolution.
      optimiser: of the shared weights.
      options: of the step.
    """
    options = options or SandwichOptions()
    distil = DISTILLATIONS[options.distillation]
    dropping = options.dropout > 0 or options.drop_connect > 0
    forward = _forward(space, options)

    def step(state: TrainState, key: jax.Array, data: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Metrics]:
        images, labels = split_batch(data, options.mesh)
        weights = everywhere(state.weights, options.mesh)
        sample_key, drop_key = jax.random.split(key)
        genomes = sandwich_genomes(space, _sampled(space, forward, options, sample_key, weights, images, labels))

        def add(carry: tuple[Tree, jax.Array], item: tuple) -> tuple[tuple[Tree, jax.Array], tuple]:
            total, teacher = carry
            genome, first, drop_key = item
            backbone = space.decode(genome)
            drops = None
            if dropping:
                rates = (jnp.where(first, rate, 0.0) for rate in (options.dropout, options.drop_connect))
                dropout, drop_connect = rates
                drops = draw_drops(drop_key, space, images.shape[0], dropout=dropout, drop_connect=drop_connect)

            def gradient(resized: jax.Array) -> Any:
                def loss(weights: Tree) -> tuple[jax.Array, jax.Array]:
                    logits = forward(weights, backbone, resized, drops)
                    taught = jnp.where(
                        first, label_loss(logits, labels, options.label_smoothing), distil(logits, teacher)
                    )
                    return jnp.mean(taught), logits

                return jax.value_and_grad(loss, has_aux=True)(weights)

            (loss, logits), found = at_resolution(space, backbone, images, gradient)
            accuracy = jnp.mean((jnp.argmax(logits, -1) == labels).astype(jnp.float32))
            total = jax.tree.map(jnp.add, total, found)
            return (total, jnp.where(first, logits, teacher)), (loss, accuracy)

        count = len(genomes)
        start = (jax.tree.map(jnp.zeros_like, weights), jnp.zeros((images.shape[0], space.classes), jnp.float32))
        items = (genomes, jnp.arange(count) == 0, jax.random.split(drop_key, count))
        (gradients, _), (losses, accuracies) = jax.lax.scan(add, start, items)
        metrics = {
            "loss": losses[0],
            "accuracy": accuracies[0],
            "smallest_accuracy": accuracies[1],
            "gradient_norm": global_norm(gradients),
        }
        return descend(state, gradients, optimiser), metrics

    return step


def _forward(space: MBConvSpace, options: SandwichOptions) -> Any:
    """Returns (weights, backbone, images, drops) -> logits float32[B, K] in training."""

    def forward(weights: Tree, backbone: Backbone, images: jax.Array, drops: Any) -> jax.Array:
        dtype = jnp.dtype(options.dtype)
        skip: Skip = "all" if options.cut else "blocks"
        _, logits = apply_training(
            space, weights, backbone, images, drops=drops, dtype=dtype, skip=skip, remat=options.remat
        )
        return logits.astype(jnp.float32)

    return forward


def _sampled(
    space: MBConvSpace,
    forward: Any,
    options: SandwichOptions,
    key: jax.Array,
    weights: Tree,
    images: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    """Returns the genomes int32[sampled, G] besides the largest and the smallest."""
    if options.sampling == "uniform" or not options.sampled:
        return draw_genomes(space, key, options.sampled)

    def loss(backbone: Backbone) -> jax.Array:
        logits = at_resolution(space, backbone, images, lambda resized: forward(weights, backbone, resized, None))
        return jnp.mean(label_loss(logits, labels, 0.0))

    return bestup_genomes(space, key, options.sampled, candidates=options.candidates, loss=loss)
