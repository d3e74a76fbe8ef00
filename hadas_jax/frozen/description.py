"""A given network on disk: `given.json`, which says what it is, the model as it came, and the weights of its heads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pydantic

from hadas_jax.data import LabelledImages
from hadas_jax.frozen.backbone import FrozenNetwork, Place
from hadas_jax.frozen.features import run_over
from hadas_jax.frozen.heads import Head
from hadas_jax.frozen.stages import StagedNetwork
from hadas_jax.runs import checkpoints
from hadas_jax.runs.names import GIVEN, GIVEN_FILE
from hadas_jax.spaces import GivenNetwork
from hadas_jax.supernet.checkpoint import Provenance

MODEL = "model.onnx"
CLASSIFIER = "classifier"


@dataclass(frozen=True)
class DescribedHead:
    """A head and where it is.

    Attributes:
        place: The tensor that it follows.
        pools: How that is pooled.
        kind: What it is, for people.
        validation_accuracy: Of the images that it was chosen by.
    """

    place: Place
    pools: tuple[str, ...]
    kind: str
    validation_accuracy: float


@dataclass(frozen=True, kw_only=True)
class GivenDescription(Provenance):
    """What is needed to use a network and its heads.

    Attributes:
        space: The network as a space of one design.
        layout: How the model takes images; `stages`: it is a list of JAX functions.
        heads: Of every exit.
        classifier: A new classifier; None: the model's own.
    """

    space: GivenNetwork
    layout: Literal["nchw", "nhwc", "stages"]
    heads: tuple[DescribedHead, ...]
    classifier: DescribedHead | None = None

    FILE = GIVEN_FILE
    FORM = "hadas_jax.given/1"
    RUNS_KEEP_IT_IN = GIVEN
    WHAT = "a given network with its heads"


@dataclass(frozen=True)
class GivenHeads:
    """A given network with its heads, as it is used.

    Attributes:
        network: The model.
        description: What it is.
        heads: Of every exit.
        classifier: A new classifier; None: the model's own.
    """

    network: FrozenNetwork | StagedNetwork
    description: GivenDescription
    heads: tuple[Head, ...]
    classifier: Head | None

    def write(self, directory: Path, files: dict[str, bytes]) -> None:
        """Writes it in place of what a directory holds; `files` are the model as it came, or its stages."""
        weights = {f"exit{n:02d}": head.as_arrays() for n, head in enumerate(self.heads)}
        if self.classifier is not None:
            weights[CLASSIFIER] = self.classifier.as_arrays()
        content: dict[str, Any] = {
            "form": GivenDescription.FORM,
            **pydantic.TypeAdapter(GivenDescription).dump_python(self.description, mode="json"),
        }
        checkpoints.write_checkpoint(directory, GIVEN_FILE, content, weights, files=files)

    @classmethod
    def read(cls, directory: Path) -> "GivenHeads":
        """Reads what `write` wrote.

        Raises:
            ValueError: There is none, or it is damaged.
        """
        description = GivenDescription.read(directory)
        weights = checkpoints.read_weights(directory, GIVEN_FILE)
        size, channels = description.space.image_size, description.space.in_channels
        network: FrozenNetwork | StagedNetwork
        if description.layout == "stages":
            network = StagedNetwork.read(directory, image_size=size, channels=channels)
        else:
            network = FrozenNetwork(directory / MODEL, layout=description.layout, image_size=size)
        heads = [Head.of_arrays(head.pools, weights[f"exit{n:02d}"]) for n, head in enumerate(description.heads)]
        new = description.classifier
        classifier = None if new is None else Head.of_arrays(new.pools, weights[CLASSIFIER])
        return cls(network, description, tuple(heads), classifier)

    def segments(self, exits: tuple[int, ...], *, learned: bool) -> list[tuple[str, Any, dict[str, str]]]:
        """Returns the input, the model and the outputs by kind of every segment, cut after some exits.

        Args:
            exits: Places, rising.
            learned: Whether the heads' own confidence is an output.
        """
        found, takes = [], "images"
        for exit in exits:
            place = self.description.heads[exit].place
            ends = (place, self.heads[exit])
            found.append((takes, *self.network.segment(takes, features=place.tensor, head=ends, learned=learned)))
            takes = place.tensor
        new = self.description.classifier
        last = None if new is None or self.classifier is None else (new.place, self.classifier)
        return [*found, (takes, *self.network.segment(takes, features=None, head=last, learned=False))]

    def predict(self, exits: tuple[int, ...], data: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
        """Runs the whole network, uncut, with some of its heads.

        Returns:
            Logits float32[e + 1, N, K], the classifier last, and the logits of the exits' learned confidence
            float32[e, N].
        """
        pairs = [(self.description.heads[exit].place, self.heads[exit]) for exit in exits]
        new = self.description.classifier
        last = None if new is None or self.classifier is None else (new.place, self.classifier)
        if isinstance(self.network, StagedNetwork):
            whole = jax.jit(self.network.whole(pairs, last))
            outputs = run_over(lambda x: jax.tree.leaves(whole(x.transpose(0, 2, 3, 1))), data, batch=None)
        else:
            outputs = run_over(self.network.session(*self.network.whole(pairs, last)), data, batch=self.network.batch)
        logits = np.stack([values.reshape(len(values), -1) for values in outputs[: len(exits) + 1]])
        confidence = [values[:, 0] for values in outputs[len(exits) + 1 :]]
        return logits, np.stack(confidence) if confidence else np.zeros((0, data.count), np.float32)
