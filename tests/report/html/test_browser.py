"""The report in a real browser: Chromium without a window."""

import shutil

import pytest

from hadas_jax.report.html.page import render_page

pytestmark = pytest.mark.slow

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
POINTS = "#front-energy .scatterlayer .trace:not(:last-child) .point"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        found.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens the report of a content; at the end nothing may have gone wrong or been asked of a network."""
    trouble, contexts = [], []

    def open_content(content, **options):
        path = tmp_path / "report.html"
        path.write_text(render_page(content))
        context = browser.new_context(viewport={"width": 1500, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on(
            "request",
            lambda sent: None if sent.url.startswith(("file:", "data:", "blob:")) else trouble.append(sent.url),
        )
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        return page

    yield open_content
    for context in contexts:
        context.close()
    assert trouble == []


def test_every_network_is_a_point_and_a_click_opens_it(open_page, content):
    page = open_page(content)
    assert page.locator(POINTS).count() == 10
    assert page.locator("#count").inner_text() == "10 of 10 networks"
    before = page.locator("#details").inner_text()
    assert "52.8" not in before
    point = page.locator("#front-energy .scatterlayer .trace").first.locator(".point").first.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    page.wait_for_selector("#front-energy .hoverlayer .hovertext")
    page.mouse.click(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    chosen = page.locator("#choice").input_value()
    assert chosen == "0.0"
    after = page.locator("#details").inner_text()
    assert after != before
    assert "ideal" in after
    assert "block 2" in after
    assert "60 %" in after
    assert "never" in after
    assert page.locator("#clocks-energy .scatterlayer .trace").count() == 3


def test_savings_say_whether_networks_are_shown_to_be_as_accurate_and_against_which_clocks(open_page, content):
    page = open_page(content)
    assert "not shown to be as accurate" in page.locator("#details").inner_text()
    bars = page.locator("#gains .barlayer .trace")
    assert bars.count() == 5
    page.locator("#saved-against").select_option("_dvfs")
    assert bars.count() == 4
    page.locator("summary", has_text="Savings").click()
    row = page.locator(".savings tbody tr", has_text="deployable").last.inner_text()
    assert "50 %" in row
    assert "-1.0 [-6." in row
    assert "not shown to be as accurate" in row


def test_ticks_of_latency_and_energy_are_written_in_full(open_page, content):
    page = open_page(content)
    for name, place in (("energy", "#front-energy"), ("latency", "#clocks-latency")):
        ticks = page.locator(f"{place} :is(.xtick, .ytick) text").all_text_contents()
        assert len(ticks) >= 4, (name, ticks)
    points = page.locator("#front-energy .xtick text").all_text_contents()
    shown = [float(text) for text in points]
    assert shown == sorted(set(shown))
    assert 1 <= shown[0] < shown[-1] <= 8


def test_filters_take_points_away_and_give_them_back(open_page, content):
    page = open_page(content)
    page.get_by_label("ideal").uncheck()
    assert page.locator(POINTS).count() == 7
    assert page.locator("#count").inner_text() == "7 of 10 networks"
    page.locator("#energy-most").evaluate(
        "(slider) => { slider.value = 500; slider.dispatchEvent(new Event('input')) }"
    )
    most = 1.0 * (8.0 / 1.0) ** 0.5
    kept = sum(n["energy"] <= most and n["kind"] != "ideal" for n in content["runs"][0]["networks"])
    assert 0 < kept < 7
    assert page.locator(POINTS).count() == kept
    page.get_by_role("button", name="Show all").click()
    assert page.locator(POINTS).count() == 10


def test_the_theme_follows_the_system_until_it_is_switched(open_page, content):
    page = open_page(content, color_scheme="dark")
    background = "getComputedStyle(document.querySelector('.card')).backgroundColor"
    tick = "getComputedStyle(document.querySelector('#front-energy .xtick text')).fill"
    assert page.evaluate(background) == "rgb(24, 32, 43)"
    assert page.evaluate(tick) == "rgb(230, 235, 242)"
    page.get_by_text("light", exact=True).click()
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.wait_for_function(f"{tick} === 'rgb(23, 33, 46)'")


def test_runs_lie_over_each_other_and_can_be_left_out(open_page, overlay):
    page = open_page(overlay)
    assert page.locator("#count").inner_text() == "20 of 20 networks"
    page.locator("#runs").get_by_label("b").uncheck()
    assert page.locator("#count").inner_text() == "10 of 20 networks"
    assert page.locator("#progress .scatterlayer .trace").count() == 2
    page.locator("#progress-of").select_option("supernet")
    assert page.locator("#progress .chart:visible").count() == 1
    assert page.locator("#progress .scatterlayer .trace").count() == 1
    assert page.locator("#exits .scatterlayer .point").count() == 3


@pytest.mark.parametrize("name", ["overlay", "architectures"])
def test_a_narrow_window_needs_no_sideways_scrolling(open_page, name, request):
    page = open_page(request.getfixturevalue(name))
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_training_alone_shows_its_curves(open_page, overlay):
    page = open_page(overlay | {"runs": overlay["runs"][2:]})
    assert page.locator("#progress .scatterlayer .trace").count() == 1
    assert page.locator("#exits .scatterlayer .point").count() == 3


def test_searches_by_gradient_show_networks_cells_alpha_and_curves(open_page, architectures):
    page = open_page(architectures)
    assert page.locator("#networks tbody tr").count() == 3
    assert page.locator(".cell").count() == 4
    assert page.locator(".cell path:not(.of-joins)").count() == 4 * 8
    rings = page.locator("#alpha-normal .scatterlayer .point")
    assert rings.count() == 8
    assert page.locator("#alpha-reduce .scatterlayer .point").count() == 8
    before = page.locator("#alpha-normal .scatterlayer .trace").inner_html()
    page.locator("#alpha-of").select_option("accelerator")
    assert page.locator("#alpha-normal .scatterlayer .trace").inner_html() != before
    page.locator("#progress-of").select_option("architecture")
    assert page.locator("#progress .chart:visible").count() == 2
    assert page.locator("#progress-0 .scatterlayer .trace").count() == 2
    assert page.locator(POINTS).count() == 10
