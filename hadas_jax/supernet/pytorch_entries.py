"""Entries of a PyTorch state dict by name and shape, turned into the layout of this package's weights.

PyTorch keeps convolutions as [O, C, k, k] and linear layers as [O, C]; here they are [k, k, C, O] and [C, O].
Shapes: C input and O output channels, k kernel.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from hadas_jax.supernet.tree import Tree

SHOWN = 20  # names that a message lists


class Entries:
    """Reads entries one after the other and notes which are missing, of another shape, or left.

    What cannot be read is returned as zeros, so that `check` names all of it at once.

    Args:
      arrays: the state dict, by name.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._missing: list[str] = []
        self._wrong: list[str] = []
        self.unknown_statistics: list[str] = []
        self.used: set[str] = set()

    def take(self, name: str, *shape: int) -> np.ndarray:
        """Returns the entry `name` as float32[shape]."""
        self.used.add(name)
        if name not in self._arrays:
            self._missing.append(name)
            return np.zeros(shape, np.float32)
        found = np.asarray(self._arrays[name])
        if found.shape != shape:
            self._wrong.append(f"{name}: expected shape {shape}, got {found.shape}")
        elif not jnp.issubdtype(found.dtype, np.floating):
            self._wrong.append(f"{name}: expected floating numbers, got {found.dtype}")
        elif not _is_finite(found):
            self._wrong.append(f"{name}: expected finite numbers, got others")
        else:
            return found.astype(np.float32)
        return np.zeros(shape, np.float32)

    def statistic(self, name: str, channels: int, *, unknown: float) -> np.ndarray:
        """Returns a batch norm's running statistic [C]; `unknown` where it is absent or not finite, and notes that."""
        found = self._arrays.get(name)
        if found is not None and (np.shape(found) != (channels,) or _is_finite(np.asarray(found))):
            return self.take(name, channels)
        self.unknown_statistics.append(name)
        self.used.update([name] if found is not None else [])
        return np.full(channels, unknown, np.float32)

    def convolution(self, name: str, *, outs: int, ins: int, size: int) -> np.ndarray:
        """Returns a dense kernel [k, k, C, O]."""
        return self.take(f"{name}.weight", outs, ins, size, size).transpose(2, 3, 1, 0)

    def pointwise(self, name: str, *, outs: int, ins: int) -> Tree:
        """Returns a 1x1 convolution without bias: kernel [C, O]."""
        return {"kernel": self.convolution(name, outs=outs, ins=ins, size=1)[0, 0]}

    def depthwise(self, name: str, *, channels: int, size: int) -> Tree:
        """Returns a depthwise convolution: kernel [k, k, C]."""
        return {"kernel": self.take(f"{name}.weight", channels, 1, size, size)[:, 0].transpose(1, 2, 0)}

    def linear(self, name: str, *, outs: int, ins: int, convolves: bool = False) -> Tree:
        """Returns a layer with bias: kernel [C, O] and bias [O]; `convolves` where it is stored as 1x1 convolution."""
        taps = (1, 1) if convolves else ()
        kernel = self.take(f"{name}.weight", outs, ins, *taps).reshape(outs, ins).T
        return {"kernel": kernel, "bias": self.take(f"{name}.bias", outs)}

    def norm(self, name: str, channels: int) -> tuple[Tree, Tree]:
        """Returns a batch norm's scale and bias, and its running mean and variance, all [C]."""
        weights = {"scale": self.take(f"{name}.weight", channels), "bias": self.take(f"{name}.bias", channels)}
        mean = self.statistic(f"{name}.running_mean", channels, unknown=0.0)
        var = self.statistic(f"{name}.running_var", channels, unknown=1.0)
        return weights, {"mean": mean, "var": var}

    def check(self, what: str) -> None:
        """Raises unless all entries that were asked for are there as asked for.

        Args:
          what: they belong to, for the message.

        Raises:
          ValueError: entries are missing, of another shape, or hold no finite numbers.
        """
        problems = []
        if self._missing:
            problems.append(f"{len(self._missing)} of {len(self.used)} are missing: {listed(self._missing)}")
        if self._wrong:
            problems.append(f"{len(self._wrong)} do not fit: {listed(self._wrong, '; ')}")
        if problems:
            raise ValueError(f"checkpoint: expected the entries of {what}, but {'; '.join(problems)}")


def _is_finite(values: np.ndarray) -> bool:
    """Whether all values are numbers that float32 holds."""
    with np.errstate(over="ignore"):
        return bool(jnp.issubdtype(values.dtype, np.floating) and np.isfinite(values.astype(np.float32)).all())


def listed(names: list[str] | tuple[str, ...], separator: str = ", ") -> str:
    """Returns the first few of some names for a message."""
    return separator.join(names[:SHOWN]) + (f"{separator}..." if len(names) > SHOWN else "")
