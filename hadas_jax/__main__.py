"""`python -m hadas_jax` is `hadas`."""

from hadas_jax.cli import main

main()
