"""Files of PyTorch checkpoints as plain arrays, without running anything that such a file might ask for.

PyTorch comes with the optional extra `torch`; the same arrays in an npz file need nothing.
"""

import importlib
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Where training scripts keep the state dict within what they save.
_NESTED = ("state_dict", "model_state_dict", "model")
# AttentiveNAS and its descendants save their settings beside the weights: objects of these classes, which are
# dictionaries, and are read as such, so that nothing of the original is imported or called.
_SETTINGS = ("utils.config.Config", "utils.config.AttrDict")


def read_pytorch(path: Path | str) -> dict[str, np.ndarray]:
    """Reads the state dict of a checkpoint: a file of `torch.save`, or an npz file of its arrays.

    The state dict may be the whole of the file or lie under `state_dict`, `model_state_dict` or `model`; the prefix
    `module.` of its names is taken off. Only tensors and plain containers are read (`weights_only`).

    Args:
      path: of the file.

    Returns:
      The entries by name, floating ones as float32.

    Raises:
      ValueError: there is no such file, it is damaged, no checkpoint, asks to run code, or PyTorch is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {path}: expected a file, got {'a directory' if path.is_dir() else 'none'}")
    arrays = _read_npz(path) if path.suffix == ".npz" else _state_dict(path, _load(path))
    return strip_module(arrays)


def strip_module(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns entries without the prefix `module.` that PyTorch's data parallelism puts before their names."""
    return {re.sub(r"^(module\.)+", "", name): array for name, array in arrays.items()}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return dict(content)
    except Exception as error:  # numpy and zipfile raise whatever the damage causes
        raise ValueError(f"checkpoint {path}: expected an npz file of arrays, cannot read it") from error


def _load(path: Path) -> Any:
    torch = _torch()
    safe = torch.serialization.safe_globals([(OrderedDict, name) for name in _SETTINGS])
    try:
        with warnings.catch_warnings(), safe:
            warnings.simplefilter("ignore")  # of old files, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:Unsupported (?:global|class): (?:GLOBAL )?|class )([\w.]+)", str(error))
        if found is None:
            raise ValueError(f"checkpoint {path}: expected a PyTorch checkpoint, cannot read it") from error
        raise ValueError(
            f"checkpoint {path}: expected tensors and plain containers alone, got {found[1]}, which could run code; "
            "if you trust the file, save its state_dict alone with PyTorch and import that"
        ) from error
    except Exception as error:  # PyTorch raises whatever the damage causes
        raise ValueError(f"checkpoint {path}: expected a PyTorch checkpoint, cannot read it") from error


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ValueError("reading a PyTorch checkpoint needs PyTorch: pip install 'hadas-jax[torch]'") from error


def _state_dict(path: Path, content: Any) -> dict[str, np.ndarray]:
    torch = _torch()
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    entries = dict(content) if isinstance(content, Mapping) else {}
    tensors = {str(name): value for name, value in entries.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        holds = ", ".join(map(str, list(entries)[:5])) if entries else f"a {type(content).__name__}"
        raise ValueError(f"checkpoint {path}: expected a state dict of tensors, got {holds or 'nothing'}")
    return {name: _array(torch, tensor) for name, tensor in tensors.items()}


def _array(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
