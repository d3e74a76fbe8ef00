"""The command line with one more space, `tiny`, which compiles in seconds: python tests/tiny_hadas.py search ..."""

import os
import re
import subprocess
import sys
from pathlib import Path

from compiling import XLA_FLAGS

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

# What tests run a few times in further processes is compiled as quickly as can be, and once for all of them.
ENVIRONMENT = {
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parents[1] / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PLATFORMS": "cpu",
    # An entry that another process is still writing is compiled anew.
    "PYTHONWARNINGS": "ignore:Error reading persistent compilation,ignore:Error writing persistent compilation",
    "XLA_FLAGS": XLA_FLAGS,
}


def started(*words, **environment):
    """Starts this command line in a process of its own; what it prints comes line by line, errors among it."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | ENVIRONMENT | {"PYTHONUNBUFFERED": "1"} | environment,
    )


def finished(*processes):
    """Waits for processes that have to end well, and returns what they printed."""
    printed = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(printed)
    return printed


def killed(process, moment):
    """Kills a process without warning as soon as it prints a line that begins as this pattern."""
    assert any(re.match(moment, line) for line in process.stdout)
    process.kill()
    process.communicate(timeout=60)


if __name__ == "__main__":
    catalogue.SPACES["tiny"] = TINY
    cli.main()
