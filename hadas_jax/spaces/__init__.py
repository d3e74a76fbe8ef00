"""Search spaces: what genomes mean, and what designs ask of the hardware."""

from hadas_jax.spaces.catalogue import ATTENTIVENAS, DIGITS, SMALL_IMAGES, load_space, space_names
from hadas_jax.spaces.codec import Codec
from hadas_jax.spaces.exits import available_exits, exit_subsets
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, Stage, block_active, make_divisible
from hadas_jax.spaces.published import published, published_in, published_names
from hadas_jax.spaces.relaxed_costs import ClockProbabilities, relaxed_cost, relaxed_cost_over_clocks
from hadas_jax.spaces.workload import segments, workload

__all__ = [
    "ATTENTIVENAS",
    "DIGITS",
    "SMALL_IMAGES",
    "Backbone",
    "ClockProbabilities",
    "Codec",
    "MBConvSpace",
    "Stage",
    "available_exits",
    "block_active",
    "exit_subsets",
    "load_space",
    "make_divisible",
    "published",
    "published_in",
    "published_names",
    "relaxed_cost",
    "relaxed_cost_over_clocks",
    "segments",
    "space_names",
    "workload",
]
