"""What a data set is and how it is divided, kept with whatever was made of it.

Weights, thresholds and choices have seen some images of a data set. Whoever uses them later needs the same division, or
judges on images that they were made from. So the division belongs to the data: a `SplitRecord` stands in every trained
supernet, run and selected network, its seed is taken from there, and data that changed since is refused.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

TRAINING, HELD_OUT, TEST = "training", "validation", "test"
"""The groups of images that a data set comes with, by the names that records have for them."""
FEW = 0.05
"""Share of their sketches that two sets may have in common by chance, such as empty images."""
_SKETCH = 128  # fingerprints that stand for a data set
_BY_CLASS, _AT_RANDOM = "by class/1", "at random/1"  # rules of the division; the number counts their versions


class Identity(NamedTuple):
    """What the stored images of a data set are told apart by.

    Attributes:
        form: Form of an image, in words.
        fingerprint_of: What fingerprints are taken of, by group: contents, or names and sizes.
        fingerprints: uint64[N] of every image, by group.
        names: uint64[n], of the names and sizes of images in files, by which they are recognised where they become too
            many to be read, or few enough.
        pixels: uint64[n], of what images look like, by which they are recognised in another form.
    """

    form: str
    fingerprint_of: Mapping[str, str]
    fingerprints: Mapping[str, np.ndarray]
    names: np.ndarray = np.zeros(0, np.uint64)
    pixels: np.ndarray = np.zeros(0, np.uint64)

    @property
    def contents(self) -> np.ndarray:
        """uint64[n]: all different fingerprints but those of names alone, rising."""
        return np.unique(np.concatenate([*self.fingerprints.values(), self.pixels]))


@dataclass(frozen=True, kw_only=True)
class _GroupDigest:
    """One group of images that a data set comes with, as short texts.

    Attributes:
        count: Number of images.
        fingerprint_of: What images are told apart by: their contents, or their names and sizes.
        images: Digest of the images, in whatever order.
        labelled: Digest of images with labels, in whatever order; as `images` where labels are inside the images.
        ordered: The same in their order.
    """

    count: int
    fingerprint_of: str
    images: str
    labelled: str
    ordered: str

    @classmethod
    def of(cls, fingerprints: np.ndarray, labels: np.ndarray | None, *, fingerprint_of: str) -> "_GroupDigest":
        """Returns the digest of a group; labels int[N] are None where they are inside what fingerprints are of."""
        pairs = fingerprints if labels is None else np.column_stack([fingerprints, labels.astype(np.uint64)])
        return cls(
            count=len(fingerprints),
            fingerprint_of=fingerprint_of,
            images=_digest(np.sort(fingerprints)),
            labelled=_digest(pairs[np.lexsort(np.atleast_2d(pairs.T))]),
            ordered=_digest(pairs),
        )


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """A data set and its division.

    Attributes:
        rule: Rule of the division.
        seed: Random seed of the division.
        parts: Number of images of each part: train, validation, calibration, test.
        division: Digest of the rows of each part.
        form: Form of the images as they are stored, such as `28x28x1 uint8`.
        sketch: The least fingerprints of all images; sets that share many images share many of these.
        classes: K.
        class_names: K names, where the data set has them.
        groups: The groups that the data set comes with, by name.
    """

    rule: str
    seed: int
    parts: dict[str, int]
    division: str
    form: str
    sketch: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...] | None
    groups: dict[str, _GroupDigest]

    @classmethod
    def of(
        cls,
        rows: Mapping[str, np.ndarray],
        labels: Mapping[str, np.ndarray | None],
        identity: Identity,
        *,
        seed: int,
        classes: int,
        class_names: tuple[str, ...] | None,
    ) -> "SplitRecord":
        """Returns the record of a divided data set.

        Args:
            rows: Rows int[n] of each part in its group, before fewer images are chosen to evaluate on.
            labels: Labels int[N] of each group where they are known.
            identity: What its images are told apart by.
            seed: Random seed of the division.
            classes: K.
            class_names: K names.
        """
        return cls(
            rule=_AT_RANDOM if labels[TRAINING] is None else _BY_CLASS,
            seed=seed,
            parts={name: len(chosen) for name, chosen in rows.items()},
            division=_digest(np.concatenate([np.append(chosen, -1) for chosen in rows.values()])),
            form=identity.form,
            sketch=tuple(identity.contents[:_SKETCH].tolist()),
            classes=classes,
            class_names=class_names,
            groups={
                name: _GroupDigest.of(fingerprints, labels[name], fingerprint_of=identity.fingerprint_of[name])
                for name, fingerprints in identity.fingerprints.items()
            },
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the record as JSON holds it."""
        return dataclasses.asdict(self)

    def is_related(self, other: "SplitRecord") -> bool:
        """Returns whether another data set is this one or has come of it: they share more than a few images."""
        shared = len(set(self.sketch) & set(other.sketch))
        return shared > FEW * min(len(self.sketch), len(other.sketch))

    @property
    def told_by(self) -> set[str]:
        """What images are told apart by: contents, or names and sizes, or in different groups both."""
        return {group.fingerprint_of for group in self.groups.values()}

    def mismatch(self, other: "SplitRecord") -> str | None:
        """As `difference`, and says so too where the same images are divided with another seed."""
        difference = self.difference(other)
        if difference is None and self.seed != other.seed:
            return f"the same images divided with seed {other.seed} instead of {self.seed}"
        return difference

    def difference(self, other: "SplitRecord") -> str | None:
        """Says what another data set has instead of this one, the first that differs, or None where they are equal.

        Seeds may differ: they are of the division, not of the data.

        Args:
            other: The record of the data at hand.

        Returns:
            A clause such as `301 training images instead of 300`.
        """
        if set(self.groups) != set(other.groups):
            now, then = (" and ".join(f"{name} images" for name in sorted(each.groups)) for each in (other, self))
            return f"{now} instead of {then}"
        for name, before in self.groups.items():
            if (count := other.groups[name].count) != before.count:
                return f"{count:,} {name} images instead of {before.count:,}"
        if self.form != other.form:
            return f"images of {other.form} instead of {self.form}"
        if self.classes != other.classes:
            return f"{other.classes} classes instead of {self.classes}"
        if self.class_names != other.class_names:
            return _renamed(self.class_names, other.class_names)
        if self.rule != other.rule:
            return f"images that are divided {other.rule.partition('/')[0]} instead of {self.rule.partition('/')[0]}"
        for what, clause in (
            ("fingerprint_of", "{name} images of another size in bytes"),
            ("images", "as many {name} images, but other ones"),
            ("labelled", "the same {name} images with other labels"),
            ("ordered", "the same {name} images in another order"),
        ):
            for name, before in self.groups.items():
                if getattr(before, what) != getattr(other.groups[name], what):
                    return clause.format(name=name)
        if self.parts != other.parts:
            now, then = (" / ".join(f"{count:,}" for count in each.parts.values()) for each in (other, self))
            return f"images divided into {now} instead of {then}"
        if self.seed == other.seed and self.division != other.division:
            return "the same images divided otherwise, as another version of scikit-learn may do"
        return None

    def require(self, other: "SplitRecord", *, dataset: str, owner: str, hint: str) -> None:
        """Refuses data other than those that something was made of.

        Args:
            other: The record of the data at hand.
            dataset: Name of the data at hand.
            owner: What was made of the data of this record.
            hint: What to do.

        Raises:
            ValueError: One line: what differs.
        """
        mismatch = self.mismatch(other)
        if mismatch is not None:
            raise ValueError(
                f"data set {dataset}: expected the images that {owner} was made of, got {mismatch}; {hint}"
            )


def _digest(values: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values, "<u8").tobytes(), digest_size=12).hexdigest()


def _renamed(before: tuple[str, ...] | None, now: tuple[str, ...] | None) -> str:
    if before is None or now is None:
        return f"classes {'without' if now is None else 'with'} names"
    number = next(number for number, (a, b) in enumerate(zip(before, now, strict=True)) if a != b)
    return f"class {number} called {now[number]!r} instead of {before[number]!r}"
