"""`python -m hadas_jax`: the command `hadas` where scripts are not on the path."""

from hadas_jax.cli import main

if __name__ == "__main__":
    main()
