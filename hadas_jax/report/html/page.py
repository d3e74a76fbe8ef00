"""The report as one HTML page that needs nothing else: content, style, scripts and plotly.js inside it."""

import base64
import gzip
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.offline

from hadas_jax.report.html.content import network_columns

_SCRIPTS = ("state", "filters", "panel", "charts", "darts", "main")


def render_page(content: dict[str, Any]) -> str:
    """Returns the page.

    plotly.js is packed by gzip, which a browser undoes by itself (`DecompressionStream`), so that a page has 2 MB
    instead of 5.

    Args:
        content: The content of a report, see `report_content`.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "assets")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    runs = content["runs"]
    found = [(run["name"], series, run["darts"]) for series, run in enumerate(runs, start=1) if run["darts"]]
    headings, rows = network_columns([network for _, _, network in found])

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
        has_alpha=any(network["alpha"] for _, _, network in found),
        darts_networks=_shared(found),
        darts_table={
            "headings": headings,
            "rows": [(name, row) for (name, _, _), row in zip(found, rows, strict=True)],
        },
        style=asset("style.css"),
        script="(() => {\n" + "\n".join(asset(f"{name}.js") for name in _SCRIPTS) + "})();",
        plotly=base64.b64encode(packed).decode(),
    )


def _shared(found: Sequence[tuple[str, int, dict[str, Any]]]) -> list[tuple[list[tuple[str, int]], dict[str, Any]]]:
    """Returns each network once, with the names and series of its runs."""
    owners: dict[str, list[tuple[str, int]]] = {}
    networks: dict[str, dict[str, Any]] = {}
    for name, series, network in found:
        owners.setdefault(network["code"], []).append((name, series))
        networks.setdefault(network["code"], network)
    return [(owners[code], network) for code, network in networks.items()]


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
