"""Training of the network of a genotype from scratch, as DARTS retrains what it found.

Cross-entropy, with that of an auxiliary head added; drop-path whose rate rises linearly; crops, mirror images and
cut-out squares; SGD with momentum, clipped gradients and a learning rate that falls to 0 along a cosine (Liu et al.,
2018, https://arxiv.org/abs/1806.09055). Batch norm normalises by the batch. Its statistics for inference are
estimated once at the end, as of every network here: then they are those of whole paths and plain images, which
running averages over dropped paths and cut images are not, and the state from step to step is weights alone.
Shapes: B batch, H, W image.
"""

import jax
import jax.numpy as jnp
import optax

from hadas_jax.runs.loop import Metrics, Step
from hadas_jax.settings import DartsTrainingSettings
from hadas_jax.spaces.darts import NODES
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.spaces.genotypes import Genotype
from hadas_jax.supernet import Tree
from hadas_jax.supernet.darts.network import apply_derived_training
from hadas_jax.supernet.layers import drop_factors
from hadas_jax.training.optimisers import TrainState, descend
from hadas_jax.training.supernet import label_loss

_MOMENTUM, _CLIP = 0.9, 5.0


def retrain_optimiser(learning_rate: float, steps: int, *, weight_decay: float) -> optax.GradientTransformation:
    """Returns SGD with momentum 0.9, gradients clipped to a global norm of 5, and weight decay of all weights.

    Args:
        learning_rate: Of the first step; it falls to 0 along half a cosine.
        steps: Of the whole training.
        weight_decay: Factor of the L2 penalty's gradient.
    """
    schedule = optax.cosine_decay_schedule(learning_rate, steps)
    return optax.chain(
        optax.clip_by_global_norm(_CLIP),
        optax.add_decayed_weights(weight_decay),
        optax.sgd(lambda count: schedule(count.astype(jnp.float32)), momentum=_MOMENTUM),
    )


def retrain_step(
    network: DartsNetwork,
    genotype: Genotype,
    optimiser: optax.GradientTransformation,
    *,
    steps: int,
    settings: DartsTrainingSettings | None = None,
) -> Step:
    """Returns the step of retraining.

    Its state is a `TrainState` of the network's weights; its data a batch, images float32[B, H, W, channels]
    standardised and labels int32[B], see `make_train_chunk`. Metrics: loss of the classifier, accuracy on the
    batch as augmented, norm of the gradient before clipping.

    Args:
        network: Its size.
        genotype: Its cells.
        optimiser: Of the weights, see `retrain_optimiser`.
        steps: Of the whole training.
        settings: Drop-path, auxiliary head, targets and number type.
    """
    settings = settings or DartsTrainingSettings()

    def step(state: TrainState, key: jax.Array, data: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Metrics]:
        images, labels = data
        drops = None
        if settings.drop_path:
            rate = settings.drop_path * state.step.astype(jnp.float32) / steps
            drops = drop_factors(key, rate, (network.cells, 2 * NODES, len(images)))

        def loss(weights: Tree) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            logits, extra = apply_derived_training(
                network,
                genotype,
                weights,
                images,
                drops=drops,
                auxiliary=settings.auxiliary_weight > 0,
                dtype=jnp.dtype(settings.dtype),
                remat=settings.remat,
            )
            own = jnp.mean(label_loss(logits, labels, settings.label_smoothing))
            if extra is None:
                return own, (own, logits)
            added = jnp.mean(label_loss(extra, labels, settings.label_smoothing))
            return own + settings.auxiliary_weight * added, (own, logits)

        (_, (own, logits)), gradients = jax.value_and_grad(loss, has_aux=True)(state.weights)
        metrics = {
            "loss": own,
            "accuracy": jnp.mean((jnp.argmax(logits, -1) == labels).astype(jnp.float32)),
            "gradient_norm": optax.tree.norm(gradients),
        }
        return descend(state, gradients, optimiser), metrics

    return step
