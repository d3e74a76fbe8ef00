"""What backbones answer, kept on disk: judged once, read by every search over the same supernet and images.

Outcomes depend on neither device nor seed of a search. A folder holds those of any number of supernets and splits,
told apart by what answers follow from: FOLDER/<supernet>/<images>/<genes>.npz, one file for each backbone.
Shapes: P backbones, G genes, E exits, N images.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from hadas_jax.data import LabelledImages
from hadas_jax.evaluation.accuracy import Outcomes, of_each
from hadas_jax.evaluation.fingerprint import fingerprint
from hadas_jax.parallel import is_first, share_json
from hw_models.whole_files import as_npz, write_whole

_SCORES = ("confidence", "entropy", "learned")


class Judging(Protocol):
    """What judges backbones, such as `Judge`."""

    def __call__(self, genomes: np.ndarray, data: LabelledImages) -> Outcomes:
        """Returns outcomes, leading axis P, of backbones int32[P, G]."""

    @property
    def fingerprint(self) -> str:
        """Of all that answers follow from, backbones and images aside."""


class KeptJudge:
    """A judge that remembers in a folder; what it gives is what was given when the backbone was judged, bit for bit.

    Args:
      judge: asked about backbones that are not in the folder yet.
      folder: made where it is not there; of several processes, all must see it, and the first one writes.

    Examples:
      >>> kept = KeptJudge(judge, Path("outcomes"))  # doctest: +SKIP
      >>> kept(genomes, splits.validation).correct.mean(-1)  # doctest: +SKIP
    """

    def __init__(self, judge: Judging, folder: Path) -> None:
        self._judge, self._folder = judge, folder / judge.fingerprint
        self._data: tuple[LabelledImages | None, Path] = (None, folder)
        self.judged = 0
        """Backbones that were not in the folder, so far."""

    def __call__(self, genomes: np.ndarray, data: LabelledImages) -> Outcomes:
        """Judges backbones int32[P, G] on some images.

        Returns:
          Outcomes as numpy arrays with leading axis P.

        Raises:
          ValueError: the folder cannot be written to or read, a file in it is damaged, or there is too little memory
            for a batch.
        """
        folder = self._folder_of(data)
        paths = [folder / f"{'-'.join(map(str, genome))}.npz" for genome in np.asarray(genomes).tolist()]
        try:
            known = np.array(share_json([path.is_file() for path in paths]), bool)
            found = [_read(path, data.count) if there else None for path, there in zip(paths, known, strict=True)]
            if not known.all():
                for row, one in zip(np.flatnonzero(~known).tolist(), self._new(genomes[~known], data), strict=True):
                    found[row] = one
                    if is_first():
                        _write(one, paths[row])
        except OSError as error:
            raise ValueError(f"--outcomes: expected a folder to read and write, got {folder}: {error}") from error
        return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

    def _new(self, genomes: np.ndarray, data: LabelledImages) -> list[Outcomes]:
        judged = self._judge(genomes, data)
        self.judged += len(genomes)
        return of_each(judged)

    def _folder_of(self, data: LabelledImages) -> Path:
        """The folder of one supernet's answers on these images; made where it is not there."""
        if self._data[0] is not data:
            self._data = data, self._folder / fingerprint(data)
        return self._data[1]


def _write(outcomes: Outcomes, path: Path) -> None:
    """Writes the outcomes of one backbone, so that whoever reads finds a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = {name: getattr(outcomes, name) for name in _SCORES}
    write_whole(path, as_npz({"correct": np.packbits(outcomes.correct, axis=-1), **scores}))


def _read(path: Path, images: int) -> Outcomes:
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            correct: Any = np.unpackbits(file["correct"], axis=-1, count=images).astype(bool)
            return Outcomes(correct, *(file[name] for name in _SCORES))
    except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"--outcomes: expected how a backbone did, got a damaged file, {path}; delete it, and it is judged again"
        ) from error
