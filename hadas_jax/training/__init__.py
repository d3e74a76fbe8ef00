"""Training of supernets and of their exit heads: steps, where their batches come from, augmentation, optimisers."""

from hadas_jax.training.augmentation import AUGMENTATIONS, Augment, augmentation
from hadas_jax.training.batches import Schedule, batch_mesh, make_train_chunk, resident, train_epochs, training_mesh
from hadas_jax.training.exits import exit_losses, exit_step
from hadas_jax.training.optimisers import TrainState, init_state, lower_rate, paper_exit_optimiser, sgd
from hadas_jax.training.supernet import (
    DISTILLATIONS,
    sandwich_backbones,
    sandwich_step,
)

__all__ = [
    "AUGMENTATIONS",
    "DISTILLATIONS",
    "Augment",
    "Schedule",
    "TrainState",
    "augmentation",
    "batch_mesh",
    "exit_losses",
    "exit_step",
    "init_state",
    "lower_rate",
    "make_train_chunk",
    "paper_exit_optimiser",
    "resident",
    "sandwich_backbones",
    "sandwich_step",
    "sgd",
    "train_epochs",
    "training_mesh",
]
