"""Pictures as files."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from hw_models.files import write_whole


def save_picture(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, whole or not at all.

    Raises:
        ValueError: The picture cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    write_whole(path, content.getvalue())
