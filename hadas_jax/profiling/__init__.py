"""What to measure on a machine: sub-networks of a space cut out at their true size, and single layers."""

from hadas_jax.profiling.networks import (
    CutNetwork,
    cut_out,
    network_cases,
    profile_machine,
    space_to_profile,
    spread_genomes,
    this_machine,
)
from hadas_jax.profiling.single_layers import layer_cases

__all__ = [
    "CutNetwork",
    "cut_out",
    "layer_cases",
    "network_cases",
    "profile_machine",
    "space_to_profile",
    "spread_genomes",
    "this_machine",
]
