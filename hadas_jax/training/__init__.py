"""Training of supernets and of their exit heads: steps, where their batches come from, augmentation, optimisers."""

from hadas_jax.training.augmentation import AUGMENTATIONS, Augment, augmentation, rand_augment
from hadas_jax.training.batches import batch_mesh, resident, streamed, whole_sharding
from hadas_jax.training.exits import exit_losses, exit_step
from hadas_jax.training.optimisers import TrainState, init_state, lower_rate, paper_exit_optimiser, sgd
from hadas_jax.training.supernet import (
    DISTILLATIONS,
    alpha_divergence,
    sandwich_backbones,
    sandwich_step,
)

__all__ = [
    "AUGMENTATIONS",
    "DISTILLATIONS",
    "Augment",
    "TrainState",
    "alpha_divergence",
    "augmentation",
    "batch_mesh",
    "exit_losses",
    "exit_step",
    "init_state",
    "lower_rate",
    "paper_exit_optimiser",
    "rand_augment",
    "resident",
    "sandwich_backbones",
    "sandwich_step",
    "sgd",
    "streamed",
    "whole_sharding",
]
