"""Search spaces: what genomes mean, and what designs ask of the hardware."""

from hadas_jax.spaces.catalogue import ATTENTIVENAS, DIGITS, SMALL_IMAGES, load_space, space_names
from hadas_jax.spaces.codec import Codec
from hadas_jax.spaces.darts import OPERATIONS, derive_code, format_code, parse_code, sample_codes
from hadas_jax.spaces.darts_workload import darts_workload
from hadas_jax.spaces.exits import available_exits, exit_subsets
from hadas_jax.spaces.genotypes import (
    Genotype,
    code_of,
    genotype_of,
    parse_genotype,
    published_genotype,
    published_genotype_names,
)
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, Stage, block_active, make_divisible
from hadas_jax.spaces.published import published, published_in, published_names
from hadas_jax.spaces.relaxed_costs import ClockProbabilities, relaxed_cost, relaxed_cost_over_clocks
from hadas_jax.spaces.space_file import read_space
from hadas_jax.spaces.workload import segments, workload

__all__ = [
    "ATTENTIVENAS",
    "DIGITS",
    "OPERATIONS",
    "SMALL_IMAGES",
    "Backbone",
    "ClockProbabilities",
    "Codec",
    "Genotype",
    "MBConvSpace",
    "Stage",
    "available_exits",
    "block_active",
    "code_of",
    "darts_workload",
    "derive_code",
    "exit_subsets",
    "format_code",
    "genotype_of",
    "load_space",
    "make_divisible",
    "parse_code",
    "parse_genotype",
    "published",
    "published_genotype",
    "published_genotype_names",
    "published_in",
    "published_names",
    "read_space",
    "relaxed_cost",
    "relaxed_cost_over_clocks",
    "sample_codes",
    "segments",
    "space_names",
    "workload",
]
