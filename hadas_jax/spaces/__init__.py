"""Search spaces: what genomes mean, and what designs ask of the hardware."""

from hadas_jax.spaces.catalogue import (
    ATTENTIVENAS,
    DIGITS,
    SMALL_IMAGES,
    load_space,
    published,
    published_in,
    published_names,
    space_names,
)
from hadas_jax.spaces.costs import relaxed_cost
from hadas_jax.spaces.darts import OPERATIONS, derive_code, format_code, parse_code, sample_codes
from hadas_jax.spaces.darts_costs import darts_counts, darts_workload
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
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
    make_divisible,
)
from hadas_jax.spaces.workload import segments, workload

__all__ = [
    "ATTENTIVENAS",
    "DIGITS",
    "OPERATIONS",
    "SMALL_IMAGES",
    "Backbone",
    "Codec",
    "DartsNetwork",
    "Genotype",
    "MBConvSpace",
    "Stage",
    "available_exits",
    "block_active",
    "code_of",
    "darts_counts",
    "darts_workload",
    "derive_code",
    "format_code",
    "genotype_of",
    "load_space",
    "make_divisible",
    "network_rows",
    "parse_code",
    "parse_genotype",
    "published",
    "published_genotype",
    "published_genotype_names",
    "published_in",
    "published_names",
    "relaxed_cost",
    "sample_codes",
    "segments",
    "space_names",
    "workload",
]
