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
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hadas_jax.methods.eh_dnas.bilevel import Batch, BilevelState, Loss, WeightDescent, bilevel_step, init_bilevel
from hadas_jax.methods.eh_dnas.hardware import (
    Hardware,
    Objective,
    ascend,
    chosen_point,
    hardware_loss,
    violations,
)
from hadas_jax.runs.loop import Metrics, Step
from hadas_jax.spaces.darts import derive_code, gumbel_shares
from hadas_jax.supernet import Tree

# (weights, shares float32[28, 8], images) -> logits float32[B, classes]
Network = Callable[[Tree, jax.Array, jax.Array], jax.Array]


@struct.dataclass
class SearchState:
    """Carried from step to step.

    Attributes:
        bilevel: Weights of the search network, alpha float32[28, 8], and their optimisers.
        multipliers: float32[K], of the constraints; None where there are none.
    """

    bilevel: BilevelState
    multipliers: jax.Array | None

    @property
    def step(self) -> jax.Array:
        """int32[] steps done."""
        return self.bilevel.step


@dataclass(frozen=True)
class Search:
    """How a search goes.

    Attributes:
        network: The search network.
        hardware: Prices networks.
        objective: What is asked of them.
        descent: Of the weights.
        optimiser: Of alpha.
        second_order: Look one step of the weights ahead.
        relaxation: `softmax`, or `gumbel`, which samples operations.
        temperature: Of the samples, by step, float32[] -> float32[].
    """

    network: Network
    hardware: Hardware
    objective: Objective
    descent: WeightDescent
    optimiser: optax.GradientTransformation
    second_order: bool
    relaxation: str
    temperature: optax.Schedule


def alpha_optimiser(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    """Returns DARTS's optimiser of alpha: Adam with betas 0.5 and 0.999 on the gradient and an L2 penalty."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate, b1=0.5, b2=0.999))


def init_search(search: Search, weights: Tree, alpha: jax.Array) -> SearchState:
    """Returns the state before the first step.

    Args:
        search: How it goes.
        weights: Of the search network.
        alpha: float32[28, 8].
    """
    constraints = search.objective.constraints
    return SearchState(
        bilevel=init_bilevel(weights, alpha, search.optimiser),
        multipliers=jnp.zeros(len(constraints), jnp.float32) if constraints else None,
    )


def search_step(search: Search) -> Step:
    """Returns one step of the search; its data is (training batch, search batch), see `resident_pair`.

    Metrics: those of `bilevel_step` with accuracies; `images_per_s` and `energy_j` of the network that alpha stands
    for, at its best operating point; `entropy`, mean over edges of that of softmax(alpha); multipliers of constraints.

    Args:
        search: How it goes.
    """
    objective, hardware = search.objective, search.hardware

    def step(state: SearchState, key: jax.Array, data: tuple[Batch, Batch]) -> tuple[SearchState, Metrics]:
        train_loss = _network_loss(search, state.step)
        multipliers = jnp.zeros(0, jnp.float32) if state.multipliers is None else state.multipliers

        def search_loss(weights: Tree, alpha: jax.Array, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
            network_key, hardware_key = jax.random.split(key)
            loss, metrics = train_loss(weights, alpha, batch, network_key)
            if objective.is_blind:
                return loss, metrics
            cost, _ = hardware_loss(objective, hardware.relaxed(alpha, hardware_key), multipliers)
            return loss + cost, metrics

        bilevel, metrics = bilevel_step(
            train_loss,
            search_loss,
            descent=search.descent,
            optimiser=search.optimiser,
            second_order=search.second_order,
        )(state.bilevel, key, data)
        alpha = bilevel.architecture
        costs = hardware.exact(derive_code(alpha))
        derived = costs.at(chosen_point(objective, costs))
        priced = {"images_per_s": 1.0 / derived.image_s}  # 0 where the network does not fit
        if derived.energy_j is not None:
            priced["energy_j"] = derived.energy_j
        raised = ascend(objective, multipliers, violations(objective, costs)) if objective.constraints else None
        pressure = {f"multiplier_{k.metric}": m for k, m in zip(objective.constraints, multipliers, strict=True)}
        entropy = jnp.mean(jnp.sum(jax.scipy.special.entr(jax.nn.softmax(alpha)), axis=-1))
        return SearchState(bilevel, raised), metrics | priced | pressure | {"entropy": entropy}

    return step


def lower_weights_rate(state: SearchState, factor: float) -> SearchState:
    """Returns the state with the weights' learning rate multiplied by `factor`, for `loop.Guard`."""
    rate = jnp.asarray(state.bilevel.rate * factor, jnp.float32)
    return dataclasses.replace(state, bilevel=dataclasses.replace(state.bilevel, rate=rate))


def _network_loss(search: Search, step: jax.Array) -> Loss:
    """Cross-entropy of the search network, with its operations as the relaxation has them at this step."""

    def loss(weights: Tree, alpha: jax.Array, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        images, labels = batch
        if search.relaxation == "gumbel":
            shares = gumbel_shares(key, alpha, search.temperature(step.astype(jnp.float32)))
        else:
            shares = jax.nn.softmax(alpha, axis=-1)
        logits = search.network(weights, shares, images).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        right = jnp.argmax(logits, axis=-1) == labels
        return jnp.mean(losses), {"accuracy": jnp.mean(right.astype(jnp.float32))}

    return loss
