"""Training of supernets and of their exit heads: steps, where their batches come from, augmentation, optimisers."""

from hadas_jax.training.augment import AUGMENTATIONS, Augment, augmentation
from hadas_jax.training.batches import resident, streamed
from hadas_jax.training.data_parallel import batch_mesh, whole_sharding
from hadas_jax.training.exit_distillation import exit_losses, exit_step
from hadas_jax.training.losses import DISTILLATIONS, alpha_divergence
from hadas_jax.training.optimisers import TrainState, init_state, lower_rate, paper_exit_optimiser, sgd
from hadas_jax.training.rand_augment import rand_augment
from hadas_jax.training.sandwich import DTYPES, SandwichOptions, sandwich_step
from hadas_jax.training.subnetworks import SAMPLINGS, sandwich_backbones

__all__ = [
    "AUGMENTATIONS",
    "DISTILLATIONS",
    "DTYPES",
    "SAMPLINGS",
    "Augment",
    "SandwichOptions",
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
