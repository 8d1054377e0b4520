"""The page in a headless Chromium, from a file: lists, sorting, keyboard, phone, dark, and without JavaScript."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_reports
from browsers import NEEDED, chromium, find, texts
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from retrieval_prompts.report.content import Item, Query, Report
from retrieval_prompts.report.page import write_report

pytestmark = NEEDED


def report() -> Report:
    """Two text sections, one of pictures, and hostile texts in each place."""
    toy = toy_reports.section()
    hostile = toy_reports.query(1000, 0.9, 0.8, text="</script><img src=x onerror='document.title=1'> zebra")
    first = toy_reports.section(
        queries=[*toy.queries, hostile],
        systems={**toy.systems, "lora": {"ndcg@10": 0.5}},
        documents={**toy.documents, "d1000": Item("<b>bold</b>", "a_very_long_word_without_any_break" * 20)},
    )
    order = random.Random(0)
    second = toy_reports.section(
        name="large",
        queries=[toy_reports.query(number, order.random(), order.random()) for number in range(10_000)],
        documents={},
    )
    classes = {name: Item(name) for name in ("cat", "dog")}
    asked = [
        Query(
            id=f"picture{number}.png",
            text=f"picture{number}.png",
            relevant={"cat": 1},
            rankings={"zero-shot": [("dog", 0.75), ("cat", 0.25)], "coop": [("cat", 0.5), ("dog", 0.5)]},
            scores={"zero-shot": 0.0, "coop": 1.0},
            picture=toy_reports.PIXEL,
        )
        for number in range(30)
    ]
    means = {"zero-shot": {"accuracy": 0.0}, "coop": {"accuracy": 1.0}}
    third = toy_reports.section(
        name="pictures", metric="accuracy", systems=means, tests={}, queries=asked, documents=classes
    )
    return toy_reports.report(first, second, third)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, report())
    return path


@pytest.fixture
def page(browser: webdriver.Chrome, file: Path) -> Iterator[webdriver.Chrome]:
    """The page, opened anew; at the end nothing may have been said on the console."""
    show(browser, 1280, 900)
    prefer(browser, "light")
    browser.get("about:blank")
    browser.get(file.as_uri())
    browser.execute_script("localStorage.clear()")
    yield browser
    assert browser.get_log("browser") == []


def show(browser: webdriver.Chrome, width: int, height: int, *, mobile: bool = False) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def prefer(browser: webdriver.Chrome, scheme: str) -> None:
    """Light or dark; and nothing may move, so that what is clicked stays where it is."""
    wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    media = {"features": [{"name": name, "value": value} for name, value in wanted.items()]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def focused(browser: webdriver.Chrome) -> str:
    return browser.execute_script("return document.activeElement.textContent")


def test_it_opens_and_shows_the_largest_changes(page: webdriver.Chrome) -> None:
    assert page.title == "A toy report"
    assert find(page, "#s1-queries .found").text == "41 queries"
    assert texts(page, "#s1-queries .delta")[:11] == ["+50.0"] * 10 + ["−25.0"]
    assert texts(page, "#s1-queries .open")[0] == "question number 0"
    assert len(texts(page, "#s1-queries .open")) == 25


def test_search_and_filters(page: webdriver.Chrome) -> None:
    search = find(page, "#s1-queries .search")
    search.send_keys("NUMBER 17")
    assert find(page, "#s1-queries .found").text == "1 of 41 queries"
    search.clear()
    search.send_keys("zebra")
    assert texts(page, "#s1-queries .open") == ["</script><img src=x onerror='document.title=1'> zebra"]
    search.clear()
    search.send_keys(" ")
    show_ = Select(find(page, "#s1-queries .show"))
    counts = []
    for value in ("helped", "hurt", "same", "all"):
        show_.select_by_value(value)
        counts.append(find(page, "#s1-queries .found").text)
    assert counts == ["10 of 41 queries", "11 of 41 queries", "20 of 41 queries", "41 queries"]
    least = find(page, "#s1-queries .least")
    least.clear()
    least.send_keys("25")
    assert find(page, "#s1-queries .found").text == "20 of 41 queries"
    search.send_keys("nothing like it")
    assert texts(page, "#s1-queries tbody") == ["No query fits."]


def test_sorting_by_the_heads_and_the_list(page: webdriver.Chrome) -> None:
    def column(number: int) -> list[float]:
        cells = texts(page, f"#s1-queries tbody td:nth-child({number})")
        return [float(cell.replace("−", "-")) for cell in cells]

    assert texts(page, "#s1-queries thead th") == ["Query", "Change", "frozen", "tuned"]
    find(page, "#s1-queries thead th:nth-child(3) button").click()
    assert column(3) == sorted(column(3), reverse=True)
    assert find(page, "#s1-queries thead th:nth-child(3)").get_attribute("aria-sort") == "descending"
    find(page, "#s1-queries thead th:nth-child(3) button").click()
    assert column(3) == sorted(column(3))
    find(page, "#s1-queries thead th:nth-child(1) button").click()
    assert texts(page, "#s1-queries .open")[1:4] == [f"question number {number}" for number in range(3)]
    Select(find(page, "#s1-queries .sorting")).select_by_value("change:1")
    assert column(2) == sorted(column(2))


def test_another_pair_can_be_compared(page: webdriver.Chrome) -> None:
    static = find(page, "#s1 .above").get_attribute("d")
    Select(find(page, "#s1 select.system")).select_by_value("frozen")
    Select(find(page, "#s1 select.baseline")).select_by_value("tuned")
    assert texts(page, "#s1 .helped") == ["11"] and texts(page, "#s1 .hurt") == ["10"]
    assert texts(page, "#s1-queries .delta")[:1] == ["−50.0"]
    assert texts(page, "#s1 .names") == ["frozen against tuned"]
    Select(find(page, "#s1 select.system")).select_by_value("tuned")
    Select(find(page, "#s1 select.baseline")).select_by_value("frozen")
    drawn = find(page, "#s1 .above").get_attribute("d")
    assert _numbers(drawn) == pytest.approx(_numbers(static), abs=0.02)


def _numbers(path: str) -> list[float]:
    return [float(number) for number in path.translate(str.maketrans("MVHZ", "    ")).split()]


def test_a_query_opens_and_closes_by_keyboard(page: webdriver.Chrome) -> None:
    find(page, "#s1-queries .open").send_keys(Keys.ARROW_DOWN)
    assert focused(page) == "question number 4"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert find(page, "dialog").is_displayed()
    assert find(page, "dialog h2").text == "question number 4"
    assert find(page, "dialog .position").text == "Query 2 of 41"
    assert texts(page, "dialog .rankings h3") == ["frozen 50.0", "tuned 100.0"]
    assert texts(page, "dialog .relevant td") == ["3", "1"]
    assert len(texts(page, "dialog .hit")) == 20
    assert texts(page, "dialog .hit.good .marks") == ["✓ relevant", "✓ relevant▲ 2"]
    assert texts(page, "dialog .hit.good .title") == ["Title of d4"] * 2
    assert texts(page, "dialog section:last-child .move")[:3] == ["▲ 2", "▼ 1", "▼ 1"]
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert find(page, "dialog h2").text == "question number 8"
    assert page.current_url.endswith("#s1/q/q8")
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not find(page, "dialog").is_displayed()
    assert focused(page) == "question number 8"
    page.switch_to.active_element.send_keys(Keys.END)
    assert find(page, "#s1-queries .place").text == "26–41 of 41"


def test_texts_are_not_markup(page: webdriver.Chrome) -> None:
    find(page, "#s1-queries .search").send_keys("zebra")
    find(page, "#s1-queries .open").click()
    assert find(page, "dialog h2").text.startswith("</script><img")
    assert "<b>bold</b>" in texts(page, "dialog .title")
    assert (
        page.execute_script("return document.querySelectorAll('dialog b b, dialog .title b, dialog h2 img').length")
        == 0
    )
    assert page.title == "A toy report"


def test_systems_side_by_side_are_chosen(page: webdriver.Chrome) -> None:
    find(page, "#s1-queries .open").click()
    find(page, "dialog fieldset label:nth-of-type(1)").click()
    assert texts(page, "dialog .rankings h3") == ["tuned 100.0"]
    find(page, "dialog .close").click()


def test_a_bar_opens_its_query(page: webdriver.Chrome) -> None:
    picture = find(page, "#s1 .drawing svg")
    webdriver.ActionChains(page).move_to_element_with_offset(picture, -picture.size["width"] // 2 + 3, 0).perform()
    assert find(page, "#s1 .under-cursor").text == "+50.0 question number 0"
    webdriver.ActionChains(page).click().perform()
    assert find(page, "dialog h2").text == "question number 0"


def test_an_address_opens_its_query(page: webdriver.Chrome, file: Path) -> None:
    page.get("about:blank")
    page.get(f"{file.as_uri()}#s1/q/q5")
    assert find(page, "dialog h2").text == "question number 5"


def test_ten_thousand_queries_are_shown_in_pages(page: webdriver.Chrome) -> None:
    assert find(page, "#s2-queries .found").text == "10,000 queries"
    assert len(texts(page, "#s2-queries tbody tr")) == 25
    find(page, "#s2-queries .on").click()
    assert find(page, "#s2-queries .place").text == "26–50 of 10,000"
    Select(find(page, "#s2-queries .sorting")).select_by_value("size:1")
    find(page, "#s2-queries .open").click()
    assert "The ranking of this query is not kept" in find(page, "dialog .rankings").text


def test_pictures_ask_for_classes(page: webdriver.Chrome) -> None:
    assert len(page.find_elements(By.CSS_SELECTOR, "#s3-queries .open img")) == 25
    find(page, "#s3-queries .open").click()
    assert find(page, "dialog .asked img").get_attribute("src") == toy_reports.PIXEL
    assert texts(page, "dialog section:last-child .hit .title") == ["cat", "dog"]


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_scrolls_sideways(page: webdriver.Chrome, width: int) -> None:
    show(page, width, 780, mobile=True)
    overflow = "return document.documentElement.scrollWidth - innerWidth"
    assert page.execute_script(overflow) <= 0
    find(page, "#s1-queries .search").send_keys("zebra")
    page.execute_script("arguments[0].click()", find(page, "#s1-queries .open"))
    assert page.execute_script(overflow) <= 0
    inside = "const box = document.querySelector('dialog .inside'); return box.scrollWidth - box.clientWidth"
    assert page.execute_script(inside) <= 0


def test_a_table_that_goes_on_to_the_right_says_so(page: webdriver.Chrome) -> None:
    hint, table = "#s1 .aside", "#s1 [aria-label^='Paired tests']"
    hidden = f"return getComputedStyle(document.querySelectorAll('{hint}')[1]).display === 'none'"
    show(page, 1280, 800)
    assert page.execute_script(hidden)
    show(page, 390, 800, mobile=True)
    assert not page.execute_script(hidden)
    assert "more" in find(page, table).get_attribute("class")
    page.execute_async_script(
        "const table = document.querySelector(arguments[0]); table.scrollLeft = table.scrollWidth;"
        "requestAnimationFrame(() => requestAnimationFrame(arguments[1]))",
        table,
    )
    assert "more" not in find(page, table).get_attribute("class")


def test_light_and_dark_by_preference_and_by_hand(page: webdriver.Chrome) -> None:
    def paper() -> str:
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    prefer(page, "light")
    light = paper()
    prefer(page, "dark")
    dark = paper()
    assert light != dark
    find(page, ".theme").click()
    assert paper() == light
    page.refresh()
    assert paper() == light  # the choice is remembered
    find(page, ".theme").click()
    assert paper() == dark
    page.execute_script("localStorage.clear()")


def test_every_control_has_a_name(page: webdriver.Chrome) -> None:
    find(page, "#s1-queries .open").click()
    nameless = """
        return [...document.querySelectorAll('button, select, input, [role=region], [role=img]')].filter(element =>
          !element.getAttribute('aria-label') && !element.textContent.trim() && !element.labels?.length &&
          element.offsetParent !== null).map(element => element.outerHTML)"""
    assert page.execute_script(nameless) == []


def test_without_javascript_the_page_still_says_it(browser: webdriver.Chrome, file: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get("about:blank")
        browser.get(file.as_uri())
        words = find(browser, "#s1").text
        assert "Tuned is 6.2 points of nDCG@10 better than frozen" in words
        assert "These are the 25 queries with the largest changes" in words
        assert find(browser, "#s1 .drawing svg .above").get_attribute("d").startswith("M0 100V50")
        assert find(browser, "#s1 .plot polyline").is_displayed()
        for hidden in ("#s1-queries .search", "#s1-queries .pager", ".theme", "dialog"):
            assert not find(browser, hidden).is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
