"""Search spaces: what genomes mean, and what designs ask of the hardware."""

from hadas_jax.spaces.catalogue import (
    ATTENTIVENAS,
    DIGITS,
    PUBLISHED_NAMES,
    SMALL_IMAGES,
    load_space,
    published,
    published_in,
)
from hadas_jax.spaces.darts import OPERATIONS, sample_codes
from hadas_jax.spaces.darts_costs import darts_counts, darts_workload
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hadas_jax.spaces.genotypes import Genotype, code_of, published_genotype
from hadas_jax.spaces.given import AnySpace, GivenNetwork
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, Stage, available_exits, block_active
from hadas_jax.spaces.workload import segments, workload

__all__ = [
    "ATTENTIVENAS",
    "DIGITS",
    "OPERATIONS",
    "PUBLISHED_NAMES",
    "SMALL_IMAGES",
    "AnySpace",
    "Backbone",
    "DartsNetwork",
    "Genotype",
    "GivenNetwork",
    "MBConvSpace",
    "Stage",
    "available_exits",
    "block_active",
    "code_of",
    "darts_counts",
    "darts_workload",
    "load_space",
    "network_rows",
    "published",
    "published_genotype",
    "published_in",
    "sample_codes",
    "segments",
    "workload",
]
