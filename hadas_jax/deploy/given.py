"""A selected network that was given: its segments, cut after its exits, with their heads.

Segments of an ONNX model come from the model as it was given, nothing rewritten but the cuts; those of stages are
serialised by `jax.export`.
Shapes: e exits of the network, N images, K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hadas_jax.data import LabelledImages
from hadas_jax.deploy.architecture import Architecture
from hadas_jax.frozen.description import GivenHeads
from hadas_jax.frozen.stages import StagedNetwork


@dataclass(frozen=True)
class GivenSegment:
    """The part from one exit to the next.

    Attributes:
        takes: The name of its input.
        outputs: The names of features, logits and confidence by kind, those that there are.
        blob: The ONNX model, or what `jax.export` serialises.
    """

    takes: str
    outputs: dict[str, str]
    blob: bytes


@dataclass(frozen=True)
class GivenSegments:
    """A given network, cut after the exits of a design.

    Attributes:
        architecture: What it was selected as.
        given: The network and all its heads.
    """

    architecture: Architecture
    given: GivenHeads

    @classmethod
    def of(cls, architecture: Architecture, directory: Path) -> "GivenSegments":
        """Reads the network that an architecture names, from its directory.

        Raises:
            ValueError: It is not there any more, or damaged.
        """
        return cls(architecture, GivenHeads.read(directory))

    @property
    def image_size(self) -> int:
        """Height and width of the images that it takes."""
        return self.given.network.image_size

    @property
    def batch(self) -> int | None:
        """Images at once; None: any number."""
        return self.given.network.batch

    @property
    def format(self) -> str:
        """The format that it comes in: `onnx`, or `stablehlo` of stages."""
        return "stablehlo" if isinstance(self.given.network, StagedNetwork) else "onnx"

    def folded(self) -> "GivenSegments":
        """Returns itself: runtimes fold what there is to fold."""
        return self

    @property
    def segments(self) -> list[GivenSegment]:
        """One for each exit, and last for the classifier."""
        learned = self.architecture.policy == "learned"
        parts = self.given.segments(self.architecture.exits, learned=learned)
        return [GivenSegment(takes, outputs, _blob(part)) for takes, part, outputs in parts]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How the given model itself takes images, as the user said, for the manifest."""
        given = self.architecture.origin.settings
        names = ("layout", "value_range", "mean", "deviation")
        return {"given": {name: given[name] for name in names}}

    def input_shape(self) -> tuple[int, int, int]:
        """Returns the shape of an image at the first segment, [C, H, W]."""
        return (self.given.network.channels, self.image_size, self.image_size)

    def predict(self, data: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
        """Runs the whole network, uncut, with the heads of the design.

        Returns:
            Logits float32[e + 1, N, K], the classifier last, and the logits of the exits' learned confidence
            float32[e, N].
        """
        return self.given.predict(self.architecture.exits, data)


def _blob(part: Any) -> bytes:
    return part if isinstance(part, bytes) else part.SerializeToString()
