"""EH-DNAS: bilevel search of an architecture whose loss holds a model of the hardware.

Jiang et al., "EH-DNAS: End-to-End Hardware-aware Differentiable Neural Architecture Search", 2021,
https://arxiv.org/abs/2111.12299, on DARTS, https://arxiv.org/abs/1806.09055. In each step
    1. alpha descends  L_search(w', softmax(alpha)) + hardware loss(alpha),
    2. the weights descend  L_train(w, softmax(alpha)),
where w' = w in first order and w one step ahead in second order. The hardware loss knows nothing of images and its
gradient goes straight to alpha; cost models are asked about the networks that alpha relaxes, not about raw alpha.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hadas_jax.methods.eh_dnas.bilevel import Batch, BilevelState, WeightDescent, bilevel_step
from hadas_jax.methods.eh_dnas.hardware import Hardware, Objective
from hadas_jax.runs.loop import Metrics, Step
from hadas_jax.spaces.darts import derive_code, gumbel_shares
from hadas_jax.supernet import Tree

# (weights, shares float32[28, 8], images) -> logits float32[B, classes]
Network = Callable[[Tree, jax.Array, jax.Array], jax.Array]


@struct.dataclass
class SearchState(BilevelState):
    """Carried from step to step; the architecture is alpha float32[28, 8].

    Attributes:
        multipliers: float32[K], of the constraints; None where there are none.
    """

    multipliers: jax.Array | None


def search_step(
    network: Network,
    hardware: Hardware,
    objective: Objective,
    *,
    descent: WeightDescent,
    optimiser: optax.GradientTransformation,
    second_order: bool,
    temperature: optax.Schedule | None = None,
) -> Step:
    """Returns one step of the search; its data is (training batch, search batch), see `resident_pair`.

    Metrics: those of `bilevel_step` with accuracies; `images_per_s` and `energy_j` of the network that alpha stands
    for, at its best operating point; `entropy`, mean over edges of that of softmax(alpha); multipliers of constraints.

    Args:
        network: The search network.
        hardware: Prices networks.
        objective: What is asked of them.
        descent: Of the weights.
        optimiser: Of alpha.
        second_order: Look one step of the weights ahead.
        temperature: Of Gumbel samples of operations, by step, float32[] -> float32[]; None: their softmax mixes them.
    """

    def step(state: SearchState, key: jax.Array, data: tuple[Batch, Batch]) -> tuple[SearchState, Metrics]:
        multipliers = jnp.zeros(0, jnp.float32) if state.multipliers is None else state.multipliers

        def loss(weights: Tree, alpha: jax.Array, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
            images, labels = batch
            if temperature is None:
                shares = jax.nn.softmax(alpha, axis=-1)
            else:
                shares = gumbel_shares(key, alpha, temperature(state.step.astype(jnp.float32)))
            logits = network(weights, shares, images).astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            right = jnp.argmax(logits, axis=-1) == labels
            return jnp.mean(losses), {"accuracy": jnp.mean(right.astype(jnp.float32))}

        def penalty(alpha: jax.Array, key: jax.Array) -> jax.Array:
            return objective.loss(hardware.relaxed(alpha, key), multipliers)[0]

        bilevel = bilevel_step(
            loss,
            penalty=None if objective.is_blind else penalty,
            descent=descent,
            optimiser=optimiser,
            second_order=second_order,
        )
        state, metrics = bilevel(state, key, data)
        alpha = state.architecture
        costs = hardware.exact(derive_code(alpha))
        derived = costs.at(objective.chosen_point(costs))
        priced = {"images_per_s": 1.0 / derived.image_s}  # 0 where the network does not fit
        if derived.energy_j is not None:
            priced["energy_j"] = derived.energy_j
        if objective.constraints:
            raised = objective.ascend(multipliers, objective.violations(costs))
            state = dataclasses.replace(state, multipliers=raised)
        pressure = {f"multiplier_{k.metric}": m for k, m in zip(objective.constraints, multipliers, strict=True)}
        entropy = jnp.mean(jnp.sum(jax.scipy.special.entr(jax.nn.softmax(alpha)), axis=-1))
        return state, metrics | priced | pressure | {"entropy": entropy}

    return step
