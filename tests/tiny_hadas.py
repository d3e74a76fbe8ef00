"""The command line with one more space, `tiny`, which compiles in seconds: python tests/tiny_hadas.py search ..."""

from hadas_jax import cli
from hadas_jax.spaces import MBConvSpace, Stage, catalogue

TINY = MBConvSpace(
    name="tiny",
    resolution=(),
    stem_width=(8,),
    stem_stride=2,
    stages=(
        Stage(width=(8, 16), depth=(1, 2), kernel=(3,), expand=(1,)),
        Stage(width=(16,), depth=(1, 2), kernel=(3,), expand=(2,), stride=2),
    ),
    last_width=(16,),
    head_expand=1,
    first_exit=1,
    exit_width=8,
)

if __name__ == "__main__":
    catalogue.SPACES["tiny"] = TINY
    cli.main()
