"""The front.json of a finished search, read back."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from hadas_jax.methods.results import FORM, Result
from hadas_jax.methods.settings import Settings
from hadas_jax.workdir import WorkDir
from hw_models.messages import explain, show

FRONT = "front.json"


@dataclass(frozen=True)
class FinishedSearch:
    """What a search left in its work directory.

    Attributes:
      path: of the work directory.
      settings: of the search.
      versions: of the packages that it ran with.
      result: what it found.
    """

    path: Path
    settings: Settings
    versions: dict[str, str]
    result: Result


def read_search(workdir: Path | str) -> FinishedSearch:
    """Reads what a search found.

    Raises:
      ValueError: one line: the directory holds no search, an unfinished one, or a front of another form.
    """
    place = WorkDir(Path(workdir))
    if not place.holds_run:
        raise ValueError(f"{workdir}: expected the work directory of a search, got none (no config.json)")
    place.settings()  # refuses the work directories of other commands
    path = place.path / FRONT
    again = f"hadas search --resume --workdir {workdir}"
    if not path.is_file():
        raise ValueError(f"{workdir}: expected a finished search, got one without {FRONT}; {again} finishes it")
    try:
        content = json.loads(path.read_text())
        form = content["form"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the front of a search, cannot read it; {again} writes it anew") from error
    if form != FORM:
        raise ValueError(f"{path}: expected form {FORM}, got {show(form)}; {again} writes it anew")
    return FinishedSearch(
        path=place.path,
        settings=Settings.from_mapping(content.get("settings"), source=str(path)),
        versions=content.get("versions", {}),
        result=_result(content, path, again),
    )


def _result(content: dict[str, Any], path: Path, again: str) -> Result:
    try:
        return pydantic.TypeAdapter(Result).validate_python(content)
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}: {explain(error.errors()[0])}; {again} writes it anew") from error
