"""Search spaces: what genomes mean, and what designs ask of the hardware."""

from hadas_jax.spaces.catalogue import ATTENTIVENAS, DIGITS, load_space, space_names
from hadas_jax.spaces.codec import Codec
from hadas_jax.spaces.exits import available_exits, exit_subsets
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, Stage, block_active, make_divisible
from hadas_jax.spaces.workload import segments, workload

__all__ = [
    "ATTENTIVENAS",
    "DIGITS",
    "Backbone",
    "Codec",
    "MBConvSpace",
    "Stage",
    "available_exits",
    "block_active",
    "exit_subsets",
    "load_space",
    "make_divisible",
    "segments",
    "space_names",
    "workload",
]
