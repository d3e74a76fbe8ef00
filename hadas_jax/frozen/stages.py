"""A network that is given as a list of JAX functions, such as the parts of a flax module; an exit may follow each.

Each stage is a pure function of one array: `lambda x: module.apply(variables, x, method="stem")` of flax.linen, or an
NNX module itself. The first takes standardised images [B, H, W, C], the last gives logits [B, K]; what they close over
stays as it is. On disk a stage is what `jax.export` makes of it, so that a work directory needs no code of the user's.
Shapes: B batch, H, W image, C channels, T tokens, D features, K classes.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from hadas_jax.frozen.backbone import IMAGES, Backbone, Place
from hadas_jax.frozen.heads import Head
from hw_models import GraphLayer, GraphLayers, layers_of

Stage = Callable[[Any], Any]
PLATFORMS = ("cpu", "cuda", "tpu")
_SUFFIX = "jax_export"


class StagedNetwork(Backbone):
    """Stages as a frozen network.

    Args:
        stages: The functions, in their order; two or more.
        image_size: Height and width of images.
        channels: Of images.
        source: Name of the network.

    Raises:
        ValueError: One line: fewer than two stages, or stages that do not take what the one before gives.
    """

    def __init__(self, stages: Sequence[Stage], *, image_size: int, channels: int = 3, source: str = "stages") -> None:
        if len(stages) < 2:
            raise ValueError(f"{source}: expected two stages or more, to put exits between them, got {len(stages)}")
        self.stages, self.source = tuple(stages), source
        self.image_size, self.channels, self.batch = image_size, channels, None
        self._shapes: list[tuple[int, ...]] = [(image_size, image_size, channels)]
        rows: list[GraphLayer] = []
        self._ends: list[int] = []
        for number, stage in enumerate(self.stages):
            x = jax.ShapeDtypeStruct((1, *self._shapes[-1]), jnp.float32)
            try:
                out = jax.eval_shape(stage, x)
                rows += layers_of(stage, x).layers
            except (TypeError, ValueError, FlaxError) as error:
                line = str(error).partition("\n")[0]
                raise ValueError(
                    f"{source}: stage {number}: expected to take float32{list(x.shape)}, got: {line}"
                ) from None
            if not hasattr(out, "shape") or not 2 <= len(out.shape) <= 4 or out.shape[0] != 1:
                raise ValueError(
                    f"{source}: stage {number}: expected one array [B, ...], got {jax.tree.map(jnp.shape, out)}"
                )
            self._shapes.append(out.shape[1:])
            self._ends.append(len(rows) - 1)
        if len(self._shapes[-1]) != 1:
            raise ValueError(f"{source}: expected logits [B, K] of the last stage, got shape {list(self._shapes[-1])}")
        self.layers = GraphLayers(tuple(rows))
        self.classes = self._shapes[-1][0]

    @property
    def places(self) -> tuple[Place, ...]:
        """Behind every stage but the last."""
        pairs = zip(self._shapes[1:-1], self._ends, strict=False)
        return tuple(Place(f"stage{n}", shape, row, len(shape) - 1) for n, (shape, row) in enumerate(pairs))

    def _takes(self, row: int, place: Place) -> bool:
        del row, place  # the last stage takes what the one before gives, and nothing else
        return True

    @property
    def penultimate(self) -> Place:
        """Before the last stage, which a new classifier replaces."""
        return self.places[-1]

    @property
    def digest(self) -> str:
        """Of what the stages compute, weights included."""
        return hashlib.sha256(b"".join(self.blobs().values())).hexdigest()

    def runner(self, places: Sequence[Place], *, with_logits: bool) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
        """Returns a function that runs the stages in JAX, see `Backbone`."""
        wanted = {place.tensor: place for place in places}

        @jax.jit
        def run(images: jax.Array) -> list[jax.Array]:
            x = jnp.transpose(images, (0, 2, 3, 1))
            found: dict[str, list[jax.Array]] = {}
            for number, stage in enumerate(self.stages):
                if not with_logits and len(found) == len(wanted):
                    break
                x = stage(x)
                if (place := wanted.get(f"stage{number}")) is not None:
                    found[place.tensor] = [pooled(x, how) for how in place.pools]
            parts = [part for place in places for part in found[place.tensor]]
            return [*parts, x] if with_logits else parts

        return lambda images: [np.asarray(part) for part in run(jnp.asarray(images))]

    def whole(
        self, heads: Sequence[tuple[Place, Head]], classifier: tuple[Place, Head] | None
    ) -> Callable[[Any], tuple[list[Any], list[Any]]]:
        """Returns images [B, H, W, C] -> logits of some heads and of a classifier, and the heads' own confidence."""
        of = {place.tensor: head for place, head in heads}

        def run(x: Any) -> tuple[list[Any], list[Any]]:
            logits, confidence = [], []
            for number, stage in enumerate(self.stages):
                if classifier is not None and number == len(self.stages) - 1:
                    logits.append(apply_head(classifier[1], x)[0])
                    break
                x = stage(x)
                if (head := of.get(f"stage{number}")) is not None:
                    found = apply_head(head, x)
                    logits.append(found[0])
                    confidence.append(found[1])
            return (logits if classifier is not None else [*logits, x]), confidence

        return run

    def segment(
        self, takes: str, *, features: str | None, head: tuple[Place, Head] | None, learned: bool
    ) -> tuple[Any, dict[str, str]]:
        """Returns one segment, x -> its outputs in order, as `jax.export` has it, and these by kind.

        Args:
            takes: The tensor that it takes.
            features: The tensor that goes on; None: it is the last segment.
            head: What gives its logits; None: the last stage.
            learned: Whether the head's own confidence is an output.
        """
        start = 0 if takes == IMAGES else int(takes.removeprefix("stage")) + 1
        until = head[0].tensor if head is not None else f"stage{len(self.stages) - 1}"
        stages = self.stages[start : int(until.removeprefix("stage")) + 1]
        kinds = [*([] if features is None else ["features"]), "logits", *(["confidence"] if learned and head else [])]

        def run(x: Any) -> tuple[Any, ...]:
            for stage in stages:
                x = stage(x)
            if head is None:
                return (x,)
            logits, confidence = apply_head(head[1], x)
            every = {"features": x, "logits": logits, "confidence": confidence}
            return tuple(every[kind] for kind in kinds)

        names = {kind: features if kind == "features" and features else f"{until}/{kind}" for kind in kinds}
        return _exported(run, self._shapes[start]), names

    def blobs(self) -> dict[str, bytes]:
        """Returns every stage as `jax.export` serialises it, by the name of its file."""
        pairs = zip(self.stages, self._shapes, strict=False)
        return {f"stage{n:02d}.{_SUFFIX}": _exported(stage, shape) for n, (stage, shape) in enumerate(pairs)}

    @classmethod
    def read(cls, directory: Path, *, image_size: int, channels: int) -> "StagedNetwork":
        """Reads the stages of `blobs` from a directory.

        Raises:
            ValueError: They are missing or damaged.
        """
        stages: list[Stage] = []
        try:
            for number in itertools.count():
                path = directory / f"stage{number:02d}.{_SUFFIX}"
                if not path.is_file():
                    break
                stages.append(jax.export.deserialize(bytearray(path.read_bytes())).call)
        except Exception as error:  # jax.export raises whatever the damage causes
            raise ValueError(f"{path}: expected a stage of a network, cannot read it") from error
        return cls(stages, image_size=image_size, channels=channels, source=str(directory))


def _exported(function: Stage, shape: Sequence[int]) -> bytes:
    """A function of one array [B, ...] as `jax.export` serialises it."""
    axes = jax.export.symbolic_shape(", ".join(map(str, ("B", *shape))))
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(jax.ShapeDtypeStruct(axes, jnp.float32))
    return bytes(exported.serialize())


def pooled(x: Any, how: str) -> Any:
    """Pools [B, H, W, C], [B, T, D] or [B, D] to [B, D]."""
    if x.ndim == 2:
        return x
    if how == "first":
        return x[:, 0]
    return (jnp.mean if how == "mean" else jnp.max)(x, axis=tuple(range(1, x.ndim - 1)))


def apply_head(head: Head, x: Any) -> tuple[Any, Any]:
    """Returns logits [B, K] and the logit of the confidence [B, 1] of a head."""
    y = jnp.concatenate([pooled(x, how) for how in head.pools], axis=1)
    for kernel, bias in head.hidden:
        y = jax.nn.relu(y @ kernel + jnp.asarray(bias)[None])
    both = y @ head.last[0] + jnp.asarray(head.last[1])[None]
    return both[:, :-1], both[:, -1:]
