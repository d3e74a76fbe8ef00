"""The front.json of a finished search, read back."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from hadas_jax.data import SplitRecord
from hadas_jax.descriptions import read_described, validated
from hadas_jax.methods.results import FORM, Result
from hadas_jax.methods.settings import Settings
from hadas_jax.workdir import WorkDir

FRONT = "front.json"


@dataclass(frozen=True)
class FinishedSearch:
    """What a search left in its work directory.

    Attributes:
      path: of the work directory.
      settings: of the search.
      versions: of the packages that it ran with.
      result: what it found.
      data: the data set that it was found on and its division.
    """

    path: Path
    settings: Settings
    versions: dict[str, str]
    result: Result
    data: SplitRecord


def read_search(workdir: Path | str) -> FinishedSearch:
    """Reads what a search found.

    Raises:
      ValueError: one line: the directory holds no search, an unfinished one, one of an earlier version, or a front of
        another form.
    """
    place = WorkDir(Path(workdir))
    if not place.holds_run:
        raise ValueError(f"{workdir}: expected the work directory of a search, got none (no config.json)")
    place.settings()  # refuses the work directories of other commands
    path = place.path / FRONT
    again = shlex.join(["hadas", "search", "--resume", "--workdir", str(workdir)])
    if not path.is_file():
        raise ValueError(f"{workdir}: expected a finished search, got one without {FRONT}; {again} finishes it")
    if place.data() is None:
        raise ValueError(
            f"{workdir}: expected a search that says which images it used, got one of an earlier version, which does "
            "not; search anew"
        )
    hint = f"; {again} writes it anew"
    content = read_described(path, FORM, what="the front of a search", hint=hint)
    return FinishedSearch(
        path=place.path,
        settings=Settings.from_mapping(content.get("settings"), source=str(path)),
        versions=content.get("versions", {}),
        result=validated(Result, content, path=path, hint=hint),
        data=validated(SplitRecord, content.get("data"), path=path, hint=hint),
    )
