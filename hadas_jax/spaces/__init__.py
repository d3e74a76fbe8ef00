"""Search spaces: what genomes mean, and what designs ask of the hardware."""

from hadas_jax.spaces.catalogue import (
    ATTENTIVENAS,
    DIGITS,
    SMALL_IMAGES,
    load_space,
    published,
    published_in,
    published_names,
    read_space,
    space_names,
)
from hadas_jax.spaces.costs import ClockProbabilities, relaxed_cost, relaxed_cost_over_clocks
from hadas_jax.spaces.darts import derive_code, format_code, parse_code, sample_codes
from hadas_jax.spaces.darts_costs import darts_workload
from hadas_jax.spaces.genotypes import (
    Genotype,
    code_of,
    genotype_of,
    parse_genotype,
    published_genotype,
    published_genotype_names,
)
from hadas_jax.spaces.mbconv import (
    Backbone,
    Codec,
    MBConvSpace,
    Stage,
    available_exits,
    block_active,
    exit_subsets,
    make_divisible,
)
from hadas_jax.spaces.workload import segments, workload
from hw_models.accelerator.network import OPERATIONS

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
