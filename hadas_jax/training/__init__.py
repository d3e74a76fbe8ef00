"""Training of supernets and of the exit heads that all backbones share."""

from hadas_jax.training.exit_distillation import exit_losses, exit_step
from hadas_jax.training.sandwich import (
    TrainState,
    init_state,
    sandwich_backbones,
    sandwich_step,
    sgd,
)

__all__ = [
    "TrainState",
    "exit_losses",
    "exit_step",
    "init_state",
    "sandwich_backbones",
    "sandwich_step",
    "sgd",
]
