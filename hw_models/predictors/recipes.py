"""How predictors are fitted, unless told otherwise: sizes and settings by kind."""

import dataclasses

from hw_models.predictors.models import KINDS


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of a fit: Adam with decoupled weight decay, its rate falling to 0 as a cosine, mean absolute error.

    Attributes:
        hidden: Outputs of the hidden layers; empty for a lookup.
        epochs: Times through the data.
        batch: Networks per step.
        learning_rate: At the start.
        weight_decay: Of all weights.
        dropout: Of embeddings.
    """

    hidden: tuple[int, ...] = ()
    epochs: int = 20
    batch: int = 2048
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raises `ValueError` where a number is out of its range."""
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if any(size < 1 for size in self.hidden):
            raise ValueError(f"hidden: expected sizes of at least 1, got {self.hidden}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected a number above 0, got {self.learning_rate}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay: expected a number of at least 0, got {self.weight_decay}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected at least 0 and below 1, got {self.dropout}")


_RECIPES = {
    "mlp": Recipe(hidden=(256, 256)),
    # Of EH-DNAS (Jiang et al., 2021), section 4.
    "embedding": Recipe((200, 100), epochs=30, batch=128, learning_rate=1e-4, weight_decay=0.01, dropout=0.5),
    "lookup": Recipe(epochs=5, learning_rate=1e-2),
}


def recipe_of(kind: str) -> Recipe:
    """Returns the settings of a kind; change them with `dataclasses.replace`.

    Raises:
        ValueError: There is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    return _RECIPES[kind]
