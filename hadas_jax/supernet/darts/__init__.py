"""Networks of the DARTS space: the search network of mixed operations, and the parts of all networks of the space."""

from hadas_jax.supernet.darts.search_network import apply_search, initialise_search

__all__ = ["apply_search", "initialise_search"]
