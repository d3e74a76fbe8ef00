"""Where the weights of a selected network are: in the supernet that its search trained or was given."""

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from hadas_jax.deploy.architecture import Architecture, SupernetPlace
from hadas_jax.methods.result_file import FinishedSearch
from hadas_jax.methods.training_inputs import at_resolutions
from hadas_jax.spaces import MBConvSpace
from hadas_jax.trained import DESCRIPTION, Description, read_description
from hadas_jax.workdir import SUPERNET


@dataclass(frozen=True)
class SearchedSupernet:
    """The supernet that a search judged by.

    Attributes:
      path: of its directory.
      description: of it.
      space: that was searched, at the resolutions asked for.
    """

    path: Path
    description: Description
    space: MBConvSpace


def supernet_of_search(search: FinishedSearch) -> SearchedSupernet:
    """Finds the supernet of a search: in its work directory if it trained any of it, else that of --checkpoint.

    Raises:
      ValueError: it is not there any more, or it is damaged.
    """
    own, given = search.path / SUPERNET, search.settings.checkpoint
    if not (own / DESCRIPTION).is_file() and given is None:
        raise ValueError(
            f"{search.path}: expected the supernet of the search in {SUPERNET}/, got none; "
            f"{shlex.join(['hadas', 'search', '--resume', '--workdir', str(search.path)])} writes it"
        )
    path = own if given is None or (own / DESCRIPTION).is_file() else Path(given)
    description = read_description(path)
    if description.data is not None and description.data.mismatch(search.data) is not None:
        raise ValueError(
            f"{path}: expected the supernet that {search.path} searched, got one of other images or of another "
            "division; search anew"
        )
    return SearchedSupernet(path, description, at_resolutions(description.space, search.settings))


def place_from(folder: Path, supernet: Path) -> SupernetPlace:
    """Returns how an ARCH.json in a folder names a supernet's directory: by a relative path if it lies below."""
    folder, supernet = folder.resolve(), supernet.resolve()
    is_below = supernet.is_relative_to(folder)
    path = supernet.relative_to(folder).as_posix() if is_below else str(supernet)
    return SupernetPlace(path=path, sha256=_digest(supernet))


def supernet_directory(architecture: Architecture, file: Path | str) -> Path:
    """Returns the directory of a network's supernet.

    Args:
      architecture: the network.
      file: its ARCH.json.

    Raises:
      ValueError: there is no supernet, or it is not the one that the network was selected from.
    """
    directory = Path(file).parent / architecture.supernet.path
    if not (directory / DESCRIPTION).is_file():
        raise ValueError(f"{file}: expected the supernet of the network at {directory}, got none (no {DESCRIPTION})")
    if _digest(directory) != architecture.supernet.sha256:
        raise ValueError(
            f"{directory}: expected the supernet that {file} was selected from, got another one; hadas select "
            "chooses from the new one"
        )
    return directory


def _digest(directory: Path) -> str:
    return hashlib.sha256((directory / DESCRIPTION).read_bytes()).hexdigest()
