"""The report as one HTML page that needs nothing else: content, style, scripts and plotly.js inside it."""

import base64
import gzip
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.offline

_SCRIPTS = ("state", "filters", "panel", "charts", "main")


def render_page(content: dict[str, Any]) -> str:
    """Returns the page.

    plotly.js is packed by gzip, which a browser undoes by itself (`DecompressionStream`), so that a page has 2 MB
    instead of 5.

    Args:
      content: of `report_content`.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "assets")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    runs = content["runs"]

    def asset(name: str) -> str:
        return loader.get_source(environment, name)[0]

    packed = gzip.compress(plotly.offline.get_plotlyjs().encode(), 9, mtime=0)
    return environment.get_template("page.html.jinja").render(
        title=", ".join(run["name"] for run in runs),
        version=importlib.metadata.version("hadas-jax"),
        content=content,
        settings=[_compared(runs, part) for part in ("settings", "versions")],
        has_networks=any(run["networks"] for run in runs),
        has_curves=any(run["curves"] for run in runs),
        has_exits=any(run["exits"] for run in runs),
        style=asset("style.css"),
        script="(() => {\n" + "\n".join(asset(f"{name}.js") for name in _SCRIPTS) + "})();",
        plotly=base64.b64encode(packed).decode(),
    )


def _compared(runs: Sequence[dict[str, Any]], part: str) -> list[tuple[str, list[str], bool]]:
    """Returns the name and the values of each setting, and whether runs agree on it; those that differ come first."""
    names = list(dict.fromkeys(name for run in runs for name in run[part]))
    rows = []
    for name in names:
        values = [_shown(run[part].get(name)) for run in runs]
        rows.append((name, values, len(set(values)) == 1))
    return sorted(rows, key=lambda row: row[2])


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
