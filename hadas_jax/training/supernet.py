"""Training of the weight-sharing supernet by the sandwich rule with in-place distillation.

Every step trains the largest backbone, the smallest and a few sampled ones: the largest learns from the labels,
the others from its predictions (BigNAS, https://arxiv.org/abs/2003.11142; AttentiveNAS,
https://arxiv.org/abs/2011.09011; AlphaNet, https://arxiv.org/abs/2102.07954). One scan goes through them and sums their
gradients, so one body is compiled, and memory holds one. Sub-networks are drawn uniformly, or by BestUp of
AttentiveNAS: of several with about as many multiply-accumulates as one drawn at random, the one with the lowest loss.
Shapes: T sub-networks per step, G genes, P pool, n candidates, B batch, K classes.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hadas_jax.runs.loop import Metrics, Step
from hadas_jax.search import sample
from hadas_jax.settings import TrainingSettings
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace
from hadas_jax.spaces.workload import row_owners, workload
from hadas_jax.supernet import Drops, Skip, Tree, apply_training, draw_drops
from hadas_jax.supernet.layers import resize
from hadas_jax.training.optimisers import TrainState, descend
from hw_models import LayerKind

_IMPORTANCE_CLIP = 5.0  # of the alpha-divergence
POOL = 256  # random genomes among which those near a target are looked for
_CANDIDATES = 3  # of BestUp, for each sampled sub-network
T = TypeVar("T")


def label_loss(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Cross-entropy float32[B] of logits [B, K] to labels int32[B], smoothed towards uniform by `smoothing`."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def _soft_cross_entropy(logits: jax.Array, teacher: jax.Array) -> jax.Array:
    """Cross-entropy float32[B] of logits [B, K] to a teacher's predictions, whose logits get no gradient.

    Its gradient is that of the Kullback-Leibler divergence from the teacher.
    """
    return optax.softmax_cross_entropy(logits, jax.lax.stop_gradient(jax.nn.softmax(teacher)))


def _alpha_divergence(logits: jax.Array, teacher: jax.Array) -> jax.Array:
    """AlphaNet's adaptive alpha-divergence (arXiv 2102.07954) float32[B] of logits [B, K] to those of a teacher.

    With p the teacher's probabilities and q the student's, D_a = sum(q ((p / q)^a - 1)) / (a (a - 1)). Of a = -1, which
    punishes a student that is surer than its teacher, and the limit a = 1, the Kullback-Leibler divergence, which
    punishes one that is less sure, each sample takes the larger. The importance ratios (p / q)^-1 are clipped at 5, in
    the value and in the gradient, which is -1/a sum(q (p / q)^a grad log q).
    """
    chex.assert_equal_shape([logits, teacher], custom_message="logits and teacher")
    log_q = jax.nn.log_softmax(logits)
    student, truth = jax.lax.stop_gradient(log_q), jax.lax.stop_gradient(jax.nn.log_softmax(teacher))
    q, p = jnp.exp(student), jnp.exp(truth)
    ratios = jnp.minimum(jnp.exp(student - truth), _IMPORTANCE_CLIP)
    negative = 0.5 * jnp.sum(q * (ratios - 1.0), axis=-1)
    positive = jnp.sum(p * (truth - student), axis=-1)
    slope = jnp.where((negative > positive)[..., None], -q * ratios, p)
    surrogate = -jnp.sum(slope * log_q, axis=-1)  # of the right gradient; the value is put in its place
    return jnp.maximum(negative, positive) + surrogate - jax.lax.stop_gradient(surrogate)


DISTILLATIONS = {"kl": _soft_cross_entropy, "alpha": _alpha_divergence}


def sandwich_step(
    space: MBConvSpace,
    optimiser: optax.GradientTransformation,
    *,
    settings: TrainingSettings | None = None,
) -> Step:
    """Returns the step of the sandwich rule.

    Its state is a `TrainState` of backbone weights; its data a batch, images float32[B, H, W, channels]
    standardised and labels int32[B], see `make_train_chunk`. Metrics: loss and accuracy of the largest
    sub-network, accuracy of the smallest, norm of the summed gradient before clipping.

    Args:
        space: The backbones to train; each runs at its own resolution.
        optimiser: Of the shared weights.
        settings: How sub-networks are drawn and trained.
    """
    settings = settings or TrainingSettings()
    distil = DISTILLATIONS[settings.distillation]
    dropping = settings.dropout > 0 or settings.drop_connect > 0
    skip: Skip = "all" if settings.cut else "blocks"

    def forward(weights: Tree, backbone: Backbone, images: jax.Array, drops: Drops | None = None) -> jax.Array:
        dtype = jnp.dtype(settings.dtype)
        _, logits = apply_training(
            space, weights, backbone, images, drops=drops, dtype=dtype, skip=skip, remat=settings.remat
        )
        return logits.astype(jnp.float32)

    def sampled(key: jax.Array, weights: Tree, images: jax.Array, labels: jax.Array) -> jax.Array:
        """Returns the genomes int32[sampled, G] besides the largest and the smallest."""
        if settings.sampling == "uniform" or not settings.sampled:
            return _draw_genomes(space, key, settings.sampled)

        def loss(backbone: Backbone) -> jax.Array:
            logits = at_resolution(space, backbone, images, lambda resized: forward(weights, backbone, resized))
            return jnp.mean(label_loss(logits, labels, 0.0))

        return bestup_genomes(space, key, settings.sampled, candidates=_CANDIDATES, loss=loss)

    def step(state: TrainState, key: jax.Array, data: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Metrics]:
        images, labels = data
        weights = state.weights
        sample_key, drop_key = jax.random.split(key)
        genomes = _sandwich_genomes(space, sampled(sample_key, weights, images, labels))

        def add(carry: tuple[Tree, jax.Array], item: tuple) -> tuple[tuple[Tree, jax.Array], tuple]:
            total, teacher = carry
            genome, first, drop_key = item
            backbone = space.decode(genome)
            drops = None
            if dropping:
                dropout, drop_connect = (jnp.where(first, r, 0.0) for r in (settings.dropout, settings.drop_connect))
                drops = draw_drops(drop_key, space, images.shape[0], dropout=dropout, drop_connect=drop_connect)

            def gradient(resized: jax.Array) -> Any:
                def loss(weights: Tree) -> tuple[jax.Array, jax.Array]:
                    logits = forward(weights, backbone, resized, drops)
                    taught = jnp.where(
                        first, label_loss(logits, labels, settings.label_smoothing), distil(logits, teacher)
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
            "gradient_norm": optax.tree.norm(gradients),
        }
        return descend(state, gradients, optimiser), metrics

    return step


def _sandwich_genomes(space: MBConvSpace, drawn: jax.Array) -> jax.Array:
    """Returns int32[T, G]: the largest genome, the smallest, and the `drawn` ones int32[T - 2, G]."""
    return jnp.concatenate([jnp.stack([space.largest_genome, space.smallest_genome]), drawn])


def _draw_genomes(space: MBConvSpace, key: jax.Array, count: int) -> jax.Array:
    """Returns random genomes int32[count, G]."""
    return sample(key, jnp.asarray(space.codec.cardinalities), size=count)


def sandwich_backbones(space: MBConvSpace, key: jax.Array, sampled: int) -> Backbone:
    """Returns the largest backbone, the smallest and `sampled` random ones, stacked."""
    return jax.vmap(space.decode)(_sandwich_genomes(space, _draw_genomes(space, key, sampled)))


def multiply_accumulates(space: MBConvSpace, backbone: Backbone) -> jax.Array:
    """Returns float32[]: multiply-accumulates of the backbone's convolutions and linear layers, without exits."""
    table = workload(space, backbone)
    counted = jnp.isin(table.kind, jnp.array([LayerKind.POOLING, LayerKind.ELEMENTWISE], table.kind.dtype), invert=True)
    trunk = jnp.asarray(row_owners(space).part >= 0)
    return jnp.sum(jnp.where(counted & trunk, table.macs * table.active, 0.0))


def bestup_genomes(
    space: MBConvSpace,
    key: jax.Array,
    count: int,
    *,
    candidates: int,
    loss: Callable[[Backbone], jax.Array],
) -> jax.Array:
    """Returns int32[count, G]: for each random target the genome of the lowest loss among those near the target.

    Args:
        space: The backbones to choose from.
        key: PRNG key.
        count: Genomes to return, at most `POOL`.
        candidates: N, how many are tried for each; 1 makes the choice random.
        loss: Of a backbone, float32[]; run for one backbone at a time.
    """
    pool = _draw_genomes(space, key, POOL)
    work = jax.vmap(lambda genome: multiply_accumulates(space, space.decode(genome)))(pool)
    # In a small space genomes repeat; each is a candidate once.
    same = jnp.all(pool[:, None] == pool[None], axis=-1)
    repeats = jnp.any(jnp.tril(same, -1), axis=1)
    distances = jnp.where(repeats[None], jnp.inf, jnp.abs(work[None, :] - work[:count, None]))
    _, nearest = jax.lax.top_k(-distances, candidates)
    tried = pool[nearest]
    losses = jax.lax.map(lambda genome: loss(space.decode(genome)), tried.reshape(count * candidates, -1))
    best = jnp.argmin(losses.reshape(count, candidates), axis=1)
    return tried[jnp.arange(count), best]


def at_resolution(space: MBConvSpace, backbone: Backbone, images: jax.Array, function: Callable[[jax.Array], T]) -> T:
    """Returns `function` of the images at the backbone's resolution; only that one is computed, if not under vmap.

    Args:
        space: Its resolutions are the ones that `function` is compiled for.
        backbone: One design of the space.
        images: float32[B, H, W, channels], square; resized where their size is another.
        function: Takes images; its result has the same form at every resolution.
    """
    sizes = space.resolution
    if len(sizes) == 1:
        return function(resize(images, sizes[0]))
    index = jnp.argmax(jnp.asarray(np.array(sizes, np.int32)) == backbone.resolution)
    return jax.lax.switch(index, [lambda size=size: function(resize(images, size)) for size in sizes])
