"""Collected runs as a reader has them: sorted and filtered in headless Chromium, without a network."""

import shutil
from pathlib import Path

import pytest

from tests.experiments.test_collect import changed, collected, metrics, stored, ticket_settings

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of six runs, and of one of them alone."""
    folder, base = tmp_path_factory.mktemp("runs"), ticket_settings()
    for m in (5, 12, 100):
        for seed in (0, 1):
            stored(
                folder / f"ticket/m{m}s{seed}", changed(base, m, seed), metrics(0.9 + m / 2000, unsolved=m)
            )
    out = tmp_path_factory.mktemp("out")
    collected(folder, out)
    return out / "index.html"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_sorts_and_filters_without_a_network(page: Path, tmp_path: Path, width: int, scheme):
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        context.set_offline(True)
        tab, said, asked = context.new_page(), [], []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready=yes]")

        runs = tab.locator(".wide", has=tab.locator("input[type=search]")).last
        names = runs.locator("tbody tr td:first-child")
        heading = runs.locator("thead th", has_text="source.multiplicity").first
        heads = runs.locator("thead th").all_text_contents()
        column = next(place for place, text in enumerate(heads) if "source.multiplicity" in text)
        widths = runs.locator(f"tbody tr td:nth-child({column + 1})")
        heading.click()
        sync.expect(widths).to_have_text(["5", "5", "12", "12", "100", "100"])  # as numbers, not as text
        heading.click()
        sync.expect(widths).to_have_text(["100", "100", "12", "12", "5", "5"])
        runs.locator("input[type=search]").fill("m12")
        sync.expect(names).to_have_count(2)
        assert sorted(names.all_inner_texts()) == ["m12s0", "m12s1"]

        names.first.locator("a").click()
        assert tab.locator("details[open]").count() == 1
        assert "python -m experiments.ticket" in tab.locator("details[open]").inner_text()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 25, 29)"
        assert dark == (scheme == "dark")
        picture = tmp_path / "page.png"
        tab.screenshot(path=picture, full_page=True)
        browser.close()
    assert picture.stat().st_size > 10_000
    assert said == []
    assert [url for url in asked if not url.startswith(("blob:", page.as_uri()))] == []
