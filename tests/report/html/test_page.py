import itertools
import json
import re
from importlib import resources

import numpy as np
import pytest

from hadas_jax.report.html.page import render_page

# Machado, Oliveira and Fernandes 2009, at full severity, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


@pytest.fixture(scope="module")
def page(content):
    return render_page(content)


@pytest.fixture(scope="module")
def colours():
    """The colours of the light and of the dark theme by name, linear RGB."""
    style = (resources.files("hadas_jax.report.html") / "assets" / "style.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    assert len(pairs) > 10
    return [{name: linear(pair[theme]) for name, *pair in pairs} for theme in (0, 1)]


def linear(text):
    values = np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    bright, dark = sorted((float(np.dot([0.2126, 0.7152, 0.0722], each)) for each in (a, b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def lab(rgb):
    xyz = np.array(TO_XYZ) @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_page_needs_nothing_else_and_is_small(page):
    assert len(page.encode()) < 6e6
    outside = re.sub(r'<script type="(application/json|text/plain)".*?</script>', "", page, flags=re.S)
    assert not re.search(r"(https?:)?//[\w.-]+\.\w+/", outside)
    assert not re.search(r"<(link|img|iframe)[^>]*(src|href)=\"(?!data:)", outside)


def test_the_content_can_be_read_back_from_the_page(page, content):
    (held,) = re.findall(r'<script type="application/json" id="content">(.*?)</script>', page, flags=re.S)
    assert json.loads(held) == content


def test_what_a_run_is_called_is_text_and_no_markup(page):
    assert "<b>one" not in page
    assert "&lt;b&gt;one" in page or "b&gt;" in page


def test_settings_that_differ_come_first(overlay):
    table = render_page(overlay).split("<summary>Settings and versions</summary>")[1]
    names = re.findall(r'<th scope="row">(.*?)</th>', table)
    assert names[0] == "device"
    assert table.count('class="differs"') == 1


def test_a_training_alone_gets_no_front(overlay):
    page = render_page(overlay | {"runs": overlay["runs"][2:]})
    assert 'id="front-energy"' not in page
    assert 'id="progress"' in page


@pytest.mark.parametrize("theme", [0, 1])
def test_text_and_marks_can_be_read_in_both_themes(colours, theme):
    found = colours[theme]
    for name in ("text", "quiet", "accent"):
        assert contrast(found[name], found["card"]) >= 4.5, name
        assert contrast(found[name], found["page"]) >= 4.5, name
    for name in [name for name in found if name.startswith("series-")]:
        assert contrast(found[name], found["card"]) >= 3, name


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("theme", [0, 1])
def test_the_first_colours_can_be_told_apart(colours, theme, blindness):
    seen = {name: lab(np.array(BLINDNESS[blindness]) @ rgb) for name, rgb in colours[theme].items()}
    series = [name for name in sorted(seen) if name.startswith("series-")][:4]
    for a, b in itertools.combinations(series, 2):
        assert np.linalg.norm(seen[a] - seen[b]) >= 20, (a, b)
