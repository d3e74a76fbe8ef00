"""A whole search that takes seconds, for tests of what comes after one."""

import contextlib

from tiny_hadas import TINY

from hadas_jax.settings import SearchSettings
from hadas_jax.spaces import catalogue

SETTINGS = SearchSettings.of(
    space="tiny",
    device="tx2-gpu",
    population=4,
    generations=2,
    elite_ratio=0.5,
    epochs=2,
    exit_epochs=2,
    front_size=6,
    group=2,
    batch=128,
)

FLAGS = (
    "--space tiny --device tx2-gpu --population 4 --generations 2 --elite-ratio 0.5 --epochs 2 --exit-epochs 2"
    " --front-size 6 --group 2 --batch 128"
)  # the same


@contextlib.contextmanager
def listed():
    """Lists the tiny space among those that come with the package, where it is not listed yet."""
    before = dict(catalogue.SPACES)
    catalogue.SPACES["tiny"] = TINY
    try:
        yield
    finally:
        if "tiny" not in before:
            del catalogue.SPACES["tiny"]
