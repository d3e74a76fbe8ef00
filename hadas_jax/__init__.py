"""Hardware-aware search for dynamic neural networks in JAX: backbone, early exits and clocks together.

Where to start: `hadas_jax.commands.search` is the command `hadas search` as a call. The parts that it is made of
are the packages `spaces`, `supernet`, `training`, `evaluation`, `search`, `methods` and `report`; the cost models
are the package `hw_models` beside this one.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
