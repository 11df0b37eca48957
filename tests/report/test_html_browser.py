"""The page of `exml report --html` in a browser: keyboard, colours, narrow screens. Skipped where there is none."""

import os
import shutil

import pytest

from exml_lightning.report.cells import build_columns
from exml_lightning.report.page.page import build_page
from exml_lightning.report.runs import find_runs
from tests.report.fake_runs import write_run, write_samples

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path, or at $CHROMIUM")
ARGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    for strategy, accuracy in (("replay", 0.9), ("noise", 0.3), ("auxiliary", 0.6)):
        run = write_run(root / "runs", "split_mnist", strategy, 0, accuracy)
        write_samples(run, [(0, 1), (2, 3)], [str(i) for i in range(10)], confidence=0.5)
    write_run(root / "runs", "split_mnist", "oracle", 0, 0.99)
    write_run(root / "runs", "split_" + "x" * 40, "replay", 0, 0.7, data__scenario__name="x" * 200)
    runs, left_out = find_runs([root])
    page = root / "report.html"
    page.write_text(build_page(build_columns(runs, left_out), [], left_out, "exml report runs"), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGS))
        yield found
        found.close()


@pytest.fixture
def opened(browser, report):
    """Open the page; at the end, nothing was complained about and nothing was asked for."""
    problems, contexts = [], []

    def open_page(width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url))
        page.goto(report.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def test_a_table_is_sorted_by_keyboard(opened):
    page = opened()
    table = page.locator("table.sortable").last
    heading = table.locator("th", has_text="accuracy in %")
    cells = table.locator("tbody tr td:nth-child(4)")
    before = cells.all_inner_texts()
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in cells.all_inner_texts()] == sorted(map(float, before))
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in cells.all_inner_texts()] == sorted(map(float, before), reverse=True)
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "none"
    assert cells.all_inner_texts() == before
    # rows without runs stay last, whichever way it goes
    table = page.locator("table.sortable").first
    button = table.locator("th[aria-sort] button", has_text="ours").nth(1)
    for first in ("30.00 (1)", "99.00 (1)"):
        button.press("Enter")
        shown = table.locator("tbody tr td.ours").all_inner_texts()
        assert shown[0].startswith(first)
        assert "no runs" in table.locator("tbody tr").last.inner_text()


def test_a_chart_tells_the_values_at_a_place(opened):
    page = opened()
    figure = page.locator("figure.chart").first
    legend = figure.locator(".legend tr", has_text="Replay")
    assert legend.locator("td").inner_text() == "90.00"
    figure.locator("input[type=range]").focus()
    page.keyboard.press("Home")
    assert legend.locator("td").inner_text() == "18.00"  # a fifth of 90 % is of the first part
    assert "experts learned: 1; " in figure.locator("input").get_attribute("aria-valuetext")
    svg = figure.locator(".plot svg")
    svg.hover(position={"x": svg.bounding_box()["width"] * 694 / 720, "y": 50})
    assert legend.locator("td").inner_text() == "90.00"


def test_the_page_never_scrolls_sideways(opened):
    page = opened(width=360)
    for opening in (False, True):
        if opening:
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("document.querySelector('.scroll').scrollWidth") > 360  # the table does
    page.set_viewport_size({"width": 1280, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color, under) => {
    canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (c) => c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$|transparent/.test(color)) return color;
    }
    return "white";
  };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest("script, style") || !e.checkVisibility()) continue;
    const under = ground(e), style = getComputedStyle(e);
    const text = rgb(e instanceof SVGElement ? style.fill : style.color, under);
    const [a, b] = [light(text), light(rgb(under, "white"))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${e.tagName} ${e.getAttribute("class")}: ${e.textContent}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_of_wcag_aa(opened, scheme):
    page = opened(scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate(CONTRAST) == []


def test_the_theme_is_the_systems_until_the_button_is_pressed(opened):
    def is_dark(page):
        ink = page.evaluate("getComputedStyle(document.body).color")
        return int(ink.removeprefix("rgb(").split(",")[0]) > 128

    page = opened(scheme="dark")
    button = page.locator("#theme")
    assert is_dark(page)
    assert button.get_attribute("aria-pressed") == "true"
    button.press("Enter")
    assert not is_dark(page)
    page.reload()
    assert not is_dark(page)  # remembered
    assert button.get_attribute("aria-pressed") == "false"
    page.emulate_media(media="print", color_scheme="dark")
    assert not is_dark(page)
    assert not is_dark(opened(scheme="light"))


def test_a_link_opens_the_run_that_it_names(opened):
    page = opened()
    link = page.locator("table.sortable tbody a").last
    target = page.locator(link.get_attribute("href"))
    target.evaluate("(details) => { details.open = false; }")
    link.press("Enter")
    page.wait_for_function("(id) => document.querySelector(id).open", arg=link.get_attribute("href"))
    page.keyboard.press("Home")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
