import itertools
import json
import re

import numpy as np
import pytest

from hadas_jax.report.darts import cell_layout
from hadas_jax.report.html.page import render_page
from hadas_jax.spaces.genotypes import PUBLISHED_GENOTYPES, published_genotype


def test_a_network_tells_its_costs_and_keeps_to_plain_json(architectures):
    device, accelerator, retrained = (run["darts"] for run in architectures["runs"][:3])
    assert (device["latency"], device["energy"], device["budgets"]) == (pytest.approx(0.8), 4.5, "kept")
    assert (accelerator["latency"], accelerator["budgets"]) == (None, None)
    assert (retrained["test_accuracy"], retrained["alpha"]) == (87.5, None)
    assert architectures["runs"][3]["darts"] is None
    assert json.loads(json.dumps(architectures, allow_nan=False)) == architectures


def test_alpha_is_shares_of_every_edge_with_what_was_kept(architectures):
    alpha = architectures["runs"][0]["darts"]["alpha"]
    shares = np.array(alpha["shares"])
    assert shares.shape == (2, 14, 8)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-5)
    assert (shares.argmax(axis=-1) == np.array(alpha["kept"])).all()
    assert (len(alpha["edges"]), alpha["edges"][0], alpha["edges"][-1]) == (14, "k-2 to 0", "2 to 3")


def test_the_table_of_networks_leaves_out_what_none_has(architectures):
    table = render_page(architectures).split('id="networks"')[1].split("</table>")[0]
    assert "123,456" in table
    assert "images/s" in table
    alone = render_page(architectures | {"runs": architectures["runs"][2:3]})
    headings = re.findall(r"<th[^>]*>(.*?)</th>", alone.split('id="networks"')[1].split("</thead>")[0])
    assert headings[-4:] == ["validation", "test", "weights", "million MACs"]
    assert not {"hardware", "images/s"} & set(headings)


def test_a_network_of_two_runs_is_drawn_once(architectures):
    page = render_page(architectures)
    assert page.count('<figure class="cell">') == 4
    assert page.count("<h2>Cells of the network of") == 2


@pytest.mark.parametrize("name", PUBLISHED_GENOTYPES)
@pytest.mark.parametrize("cell", ["normal", "reduce"])
def test_labels_of_a_cell_stand_apart(name, cell):
    graph = published_genotype(name).graph(cell)
    places, arrows = cell_layout(graph)
    labels = [np.array(arrow.label) for arrow in arrows if arrow.operation]
    for one, other in itertools.combinations(labels, 2):
        assert np.abs(one - other).max() > 0.15
    for node in places.values():
        assert min(np.abs(label - np.array(node)).max() for label in labels) > 0.3


def test_edges_start_and_end_at_their_nodes():
    graph = published_genotype("DARTS_V2").graph("normal")
    places, arrows = cell_layout(graph)
    points = list(places.values())
    for arrow, (start, end, operation) in zip(arrows, graph.edges, strict=True):
        assert (arrow.start, arrow.end, arrow.operation) == (points[start], points[end], operation)
