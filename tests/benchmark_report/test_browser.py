"""The benchmark's report in a real browser, opened from disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

PLACE = "(one => [...document.querySelectorAll('*')].indexOf(one))"
WHERE = f"""() => {{
  const one = document.activeElement, style = getComputedStyle(one);
  return {{name: one.tagName, text: one.outerHTML.slice(0, 80), place: {PLACE}(one),
           ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0}};
}}"""


@pytest.fixture
def opened(report: Path, browser: Browser) -> Iterator[Page]:
    """A page that fails the test if it asked the network for anything, or complained."""
    context = browser.new_context(color_scheme="light", viewport={"width": 1160, "height": 900})
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.goto(report.as_uri())
    yield page
    context.close()
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert complaints == []


def test_every_part_is_drawn(opened: Page) -> None:
    for part in ("paper", "forest", "few-shot", "matrix", "elsewhere", "outputs", "brains", "made", "methods", "data"):
        assert opened.locator(f"section#{part} h2").is_visible()
    assert opened.locator("#forest figure svg [class~=mark]").count() == 3 * 2 * 4 * 2
    assert opened.locator("#matrix svg .heat").count() == 3 * 2 * 2 * 4 * 2


def test_columns_sort_by_mouse_and_keyboard(opened: Page) -> None:
    head = opened.locator("#gains thead button", has_text="Relative gain")
    head.click()
    values = opened.locator("#gains tbody td:nth-child(9)").evaluate_all(
        "cells => cells.map(cell => Number(cell.dataset.value))")
    assert values == sorted(values)
    head.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("#gains th[aria-sort=descending]").count() == 1
    first = opened.locator("#gains tbody tr td:nth-child(9)").first.evaluate("cell => Number(cell.dataset.value)")
    assert first == values[-1]


def test_rows_are_filtered_by_choice_and_by_words(opened: Page) -> None:
    form = opened.locator("form[data-table=gains]")
    every = opened.locator("#gains tbody tr").count()
    form.locator("select").first.select_option("brain-age")
    shown = opened.locator("#gains tbody tr:visible")
    assert shown.count() == every / 3
    assert set(shown.locator("td:first-child").all_inner_texts()) == {"brain-age"}
    form.locator("input").fill("control outside")
    assert shown.count() == 2 * 2
    assert form.locator("output").inner_text() == f"4 of {every} rows"


def test_the_outputs_of_another_row_are_shown(opened: Page) -> None:
    box = opened.locator("[data-panels]").first
    assert box.locator("[data-panel]:visible").count() == 1
    box.locator("select").select_option(label="cnn-small from synthetic-mri")
    assert box.locator("[data-panel]:visible").get_attribute("data-panel") == box.locator("select").input_value()


def test_slices_move_by_keyboard_and_mouse_and_maps_change(opened: Page) -> None:
    box = opened.locator("#brains [data-panels]").first
    view = box.locator(".viewer:visible")

    def pictures() -> list[str]:
        return view.locator("canvas").evaluate_all("all => all.map(one => one.toDataURL())")

    axial, before = view.locator("input[data-axis='2']"), pictures()
    axial.focus()
    opened.keyboard.press("ArrowRight")
    after = pictures()
    assert axial.input_value() == "6"
    assert [old != new for old, new in zip(before, after, strict=True)] == [True, False, False]
    view.locator("canvas").first.click(position={"x": 90, "y": 60})
    clicked = pictures()
    assert [old != new for old, new in zip(after, clicked, strict=True)] == [False, True, True]
    maps = view.locator("select")
    assert maps.locator("option").all_inner_texts()[1:] == ["vit-mini from scratch", "none"]
    maps.focus()
    opened.keyboard.press("ArrowDown")
    assert pictures() != clicked
    box.locator("select").first.select_option(index=1)
    assert view.count() == 1
    assert pictures() != clicked


def test_the_theme_the_phone_and_paper(opened: Page) -> None:
    def paper() -> str:
        return opened.evaluate("getComputedStyle(document.body).backgroundColor")

    light = paper()
    opened.locator("#theme").click()
    assert paper() != light
    opened.set_viewport_size({"width": 390, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    opened.emulate_media(media="print", color_scheme="dark")
    assert not opened.locator("form.filters").first.is_visible()
    assert paper() == "rgb(255, 255, 255)"
    opened.set_viewport_size({"width": 1040, "height": 720})  # A4 across, less its margins
    ends = opened.evaluate("[...document.querySelectorAll('table.sortable')].map(t => t.getBoundingClientRect().right)")
    assert len(ends) > 6
    assert max(ends) <= 1041


def test_tables_download(opened: Page, report: Path, tmp_path: Path) -> None:
    with opened.expect_download() as download:
        opened.locator("a[download='claims.csv']").click()
    download.value.save_as(tmp_path / "claims.csv")
    assert (tmp_path / "claims.csv").read_text() == (report.parent / "claims.csv").read_text()


def test_the_tab_key_reaches_what_can_be_pressed_and_shows_where_it_is(opened: Page) -> None:
    """In the order of the page; from the head of a table past its filters, and into the viewer."""
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    assert opened.locator(".skip").bounding_box()["x"] >= 0, "seen as soon as it is reached"  # type: ignore[index]
    reached = [opened.evaluate(WHERE)]
    while len(reached) < 400 and reached[-1]["name"] != "BODY":
        opened.keyboard.press("Tab")
        reached.append(opened.evaluate(WHERE))
    assert reached[-1]["name"] == "BODY", "it ends"
    stops = reached[:-1]
    assert [one["place"] for one in stops] == sorted(one["place"] for one in stops)
    assert len({one["place"] for one in stops}) == len(stops)
    assert all(one["ring"] for one in stops), [one for one in stops if not one["ring"]]
    for pressable in ("#gains thead button", "form[data-table=gains] input", "form[data-table=gains] select", "#theme",
                      "#outputs select:visible", "#brains input:visible", "#brains select:visible", "nav a"):
        wanted = opened.locator(pressable).evaluate_all(f"all => all.map(one => {PLACE}(one))")
        assert wanted
        assert set(wanted) <= {one["place"] for one in stops}, pressable


def test_a_start_that_may_have_seen_the_tested_is_marked_wherever_it_is_compared(opened: Page) -> None:
    for table in ("gains", "scores", "saved", "gaps", "calibration", "bias"):
        starts = set(opened.locator(f"#{table} tbody td:nth-child(3)").all_text_contents())
        assert {name for name in starts if "†" in name} == {"procedural-images †"}, table
        assert "procedural-images" not in starts, table
