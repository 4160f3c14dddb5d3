"""The report in a real browser, opened from disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from headstart.report import render


@pytest.fixture(params=["regression", "binary"])
def opened(request: pytest.FixtureRequest, simulated: Callable, browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """A page that fails the test if it asked the network for anything, or complained."""
    made = simulated(request.param)
    path = render(made.result, made.predictions, tmp_path / "report.html")
    context = browser.new_context(color_scheme="light", viewport={"width": 1160, "height": 900})
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert complaints == []


def first_cells(page: Page, table: str) -> list[str]:
    return page.locator(f"#{table} tbody tr td:first-child").all_inner_texts()


def test_it_loads_whole_and_runs_no_foreign_script(opened: Page) -> None:
    dialogs: list[str] = []
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    assert opened.locator("h1").is_visible()
    assert opened.locator("figure svg").count() >= 5
    assert opened.locator("svg [class~=mark]").count() > 20
    assert dialogs == []


def test_columns_sort_both_ways_by_mouse_and_keyboard(opened: Page) -> None:
    head = opened.locator("#scores-inside thead button").nth(1)
    head.click()
    values = opened.locator("#scores-inside tbody td:nth-child(2)").evaluate_all(
        "cells => cells.map(cell => Number(cell.dataset.value))")
    assert values == sorted(values)
    ascending = first_cells(opened, "scores-inside")
    head.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("#scores-inside th[aria-sort=descending]").count() == 1
    assert first_cells(opened, "scores-inside")[0] == ascending[-1]


def test_the_theme_follows_the_system_and_the_button(opened: Page) -> None:
    def paper() -> str:
        return opened.evaluate("getComputedStyle(document.body).backgroundColor")

    light = paper()
    opened.emulate_media(color_scheme="dark")
    dark = paper()
    assert light != dark
    opened.locator("#theme").click()
    assert paper() == light
    opened.locator("#theme").click()
    assert paper() == dark


def test_it_fits_a_phone_and_paper(opened: Page) -> None:
    opened.set_viewport_size({"width": 390, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    for scheme in ("light", "dark"):
        opened.emulate_media(media="print", color_scheme=scheme)
        assert not opened.locator("#theme").is_visible()
        assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_tables_download(opened: Page, tmp_path: Path) -> None:
    with opened.expect_download() as download:
        opened.locator("a[download='scores.csv']").click()
    download.value.save_as(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().startswith("model,partition,metric,value,low,high,n")
