"""A check of a front against measurements for people: the table, and predicted against measured as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from rich.console import Console

from hadas_jax.deploy.check import Agreement, Check
from hadas_jax.report.console import milli, new_table, print_line
from hadas_jax.report.network import corruptions_table
from hadas_jax.report.pictures import compare_on_equal_axes, new_figure, save_picture


def print_check(check: Check, console: Console) -> None:
    """Prints predicted beside measured for every network, how well they agree, and what that means for the front."""
    table = new_table(
        f"{check.protocol['device']} beside what was measured, ms per sample",
        "network",
        "exits",
        "to each exit\npredicted",
        "to each exit\nmeasured",
        "expected\npredicted",
        "expected\nmeasured",
        names=2,
    )
    for network in check.networks:
        table.add_row(
            network.name,
            " ".join(map(str, network.blocks)) or "-",
            " ".join(milli(found.predicted_s) for found in network.exits),
            " ".join(milli(found.measured_s) for found in network.exits),
            milli(network.predicted_s),
            milli(network.expected_s),
        )
    console.print(table)
    for line in summary(check):
        print_line(console, line, wrap=True)
    for network in check.networks:
        if network.corruptions:
            console.print(corruptions_table(network.name, network.corruptions))


def summary(check: Check) -> list[str]:
    """Returns what a check found, in sentences."""
    way = "by its measured paths" if any(each.measured_s is None for each in check.networks) else "end to end"
    lines = [
        f"Every exit: {agreement_text(check.exits)}.",
        f"Expected latency, {way}: {agreement_text(check.expected)}.",
    ]
    if check.by_clock is not None:
        lines.append(
            f"The same by the clock, with the speed that the machine had then: {agreement_text(check.by_clock)}."
        )
    if check.energy is not None:
        lines.append(f"Energy of every exit: {agreement_text(check.energy)}.")
    if check.noise is not None:
        lines.append(f"Noise floor: two measurements of the same path differ by {check.noise:.1%} on average.")
    if check.left_out:
        lines.append(f"Left out, as their measurements were disturbed: {', '.join(check.left_out)}.")
    same = len(set(check.front) & set(check.measured_front))
    lines.append(
        f"Front of accuracy and expected latency: {same} of its {len(check.front)} networks are on the measured one, "
        f"which has {len(check.measured_front)}; its hypervolume is {check.hypervolume:.3f} of the predicted one."
    )
    at = ""
    if check.speed is not None and check.exits_at_speed is not None and check.expected_at_speed is not None:
        at = ", had the machine been as fast as then"
        lines.append(
            f"Single layers took {check.speed:.3f} times as long as when the device was measured. Every exit{at}: "
            f"{agreement_text(check.exits_at_speed)}. Expected latency{at}: {agreement_text(check.expected_at_speed)}."
        )
    verdict = "Both mean errors are" if check.is_within else "Not both mean errors are"
    lines.append(f"{verdict} within the tolerance of {check.tolerance:.0%}{at}.")
    return lines


def agreement_text(found: Agreement) -> str:
    """Returns an agreement in words."""
    order = "" if found.tau is None else f", Kendall tau {found.tau:.3f}"
    pairs = "" if found.ordered is None else f", {found.ordered:.1%} of the pairs in the right order"
    if found.ordered_apart is not None:
        pairs += f" ({found.ordered_apart:.1%} of those farther apart than twice the noise)"
    bias = f"bias {found.bias:+.1%}, without it {found.unbiased:.1%}"
    return f"mean error {found.error:.1%} of {found.count} ({bias}){order}{pairs}"


def plot_check(check: Check, path: Path) -> None:
    """Draws predicted against measured latency, exits in colours, as a PNG.

    Raises:
        ValueError: The picture cannot be written.
    """
    figure, ((paths, expected),) = new_figure((10.6, 5), 1, 2)
    most = max(len(network.exits) for network in check.networks)
    everything: list[float] = []
    for number in range(most):
        found = [network.exits[number] for network in check.networks if number < len(network.exits) - 1]
        everything += _scatter(paths, [(each.measured_s, each.predicted_s) for each in found], f"exit {number + 1}")
    last = [network.exits[-1] for network in check.networks]
    everything += _scatter(paths, [(each.measured_s, each.predicted_s) for each in last], "classifier", "black")
    compare_on_equal_axes(paths, np.asarray(everything), below=0.8, above=1.25)
    paths.set_title(f"every exit: mean error {check.exits.error:.1%}", fontsize=10)
    pairs = [(network.expected_s, network.predicted_s) for network in check.networks]
    compare_on_equal_axes(expected, np.asarray(_scatter(expected, pairs, None)), below=0.8, above=1.25)
    expected.set_title(f"expected under the policy: mean error {check.expected.error:.1%}", fontsize=10)
    for axis in (paths, expected):
        axis.set_xlabel("measured latency (ms)")
        axis.set_ylabel("predicted latency (ms)")
        axis.grid(visible=True, which="both", alpha=0.2)
    paths.legend(fontsize=7)
    figure.suptitle(f"{check.protocol['device']} on {check.protocol['machine']}", fontsize=10)
    save_picture(figure, path)


def _scatter(
    axis: Axes, pairs: Sequence[tuple[float, float]], label: str | None, colour: str | None = None
) -> list[float]:
    """Draws pairs of measured and predicted seconds in ms; returns all values."""
    if not pairs:
        return []
    values = 1e3 * np.asarray(pairs)
    axis.scatter(values[:, 0], values[:, 1], s=20, alpha=0.75, linewidths=0, label=label, color=colour)
    return values.ravel().tolist()
