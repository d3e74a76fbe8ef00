"""The flags that all commands share which start or resume a run in a work directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import FlagCreatePairsOff


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Of a run; a command says in its own docstring of `workdir` where it goes by default."""

    workdir: Path | None = None
    """Where everything is written."""
    resume: FlagCreatePairsOff[bool] = False
    """Continue the run in --workdir, with its settings."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace the run in --workdir."""
    config: Path | None = None
    """YAML or JSON file of settings; flags given beside it win."""
    tensorboard: FlagCreatePairsOff[bool] = False
    """Write metrics for TensorBoard too, into tensorboard/ of the work directory; needs the extra `tensorboard`."""

    @property
    def place(self) -> dict[str, Any]:
        """The flags as the library calls take them; the command line itself reads --config."""
        return {name: getattr(self, name) for name in ("workdir", "resume", "overwrite", "tensorboard")}
