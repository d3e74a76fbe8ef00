"""The report as one HTML page that needs nothing else: content, style, scripts and plotly.js inside it."""

import base64
import gzip
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.offline

from hadas_jax.report.console import megahertz

# Columns of the table of networks: heading, and the value in words, where a network has one.
_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("hardware", "hardware", str),
    ("images/s", "images_per_s", "{:,.1f}".format),
    ("latency, ms", "latency", "{:.4g}".format),
    ("energy, mJ", "energy", "{:.4g}".format),
    ("clocks, MHz", "clocks", megahertz),
    ("budgets", "budgets", str),
    ("validation", "validation_accuracy", "{:.2f} %".format),
    ("test", "test_accuracy", "{:.2f} %".format),
    ("weights", "parameters", "{:,}".format),
    ("million MACs", "macs", lambda macs: f"{macs / 1e6:,.2f}"),
)
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
        has_checks=any(run["check"] for run in runs),
        has_exits=any(run["exits"] for run in runs),
        has_corruptions=any(run["corruptions"] for run in runs),
        has_alpha=any(network["alpha"] for _, _, network in found),
        darts_networks=_shared(found),
        darts_table=_table([(name, network) for name, _, network in found]),
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


def _table(networks: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Returns the headings and the rows of the table of networks; what none of them has is left out."""
    known = [column for column in _COLUMNS if any(network[column[1]] is not None for _, network in networks)]
    rows = [
        (name, ["" if network[key] is None else in_words(network[key]) for _, key, in_words in known])
        for name, network in networks
    ]
    return {"headings": [heading for heading, _, _ in known], "rows": rows}


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
