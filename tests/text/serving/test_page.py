"""The page of a server in a headless Chromium: what moved, hostile texts, keyboard, phone, dark, token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsers import NEEDED, chromium, find, texts
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from toy_server import QUESTIONS, Running, running, web_of

pytestmark = NEEDED
HOSTILE = "</script><img src=x onerror='document.title=1'><b>bold</b>"


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def hostile(home: Path) -> Iterator[Running]:
    """A server whose documents are markup."""
    web = web_of(home, "long", "half")
    real = web.batcher._work

    def work(rows: Any) -> Any:
        def spoiled(hits: Any) -> Any:
            return hits and [replace(hit, title=HOSTILE, text=HOSTILE) for hit in hits]

        return [replace(each, hits=spoiled(each.hits), frozen=spoiled(each.frozen)) for each in real(rows)]

    web.batcher._work = work
    with running(web) as found:
        yield found


def opened(browser: webdriver.Chrome, served: Running, width: int = 1280) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"http://127.0.0.1:{served.port}/")
    WebDriverWait(browser, 30).until(lambda b: texts(b, "#prompt option") or texts(b, "#said.wrong"))


def until(browser: webdriver.Chrome, selector: str, expected: list[str]) -> None:
    WebDriverWait(browser, 30).until(lambda b: texts(b, selector) == expected)


def asked(browser: webdriver.Chrome, question: str) -> None:
    find(browser, "#query").clear()
    find(browser, "#query").send_keys(question, Keys.ENTER)


def test_both_rankings_and_what_moved(browser: webdriver.Chrome, server: Running) -> None:
    opened(browser, server)
    assert texts(browser, "#prompt option") == ["short", "long", "prefix", "feedback", "half", "none (frozen model)"]
    Select(find(browser, "#prompt")).select_by_value("long")
    asked(browser, QUESTIONS[0])
    found = server.search(query=QUESTIONS[0], prompt="long", frozen=True)
    ids = [[hit["id"] for hit in found[side]] for side in ("hits", "frozen")]
    until(browser, "#chosen .id", ids[0])
    until(browser, "#frozen .id", ids[1])
    assert ids[0] != ids[1], "the prompt changes something"
    places = {id: place for place, id in enumerate(ids[1])}
    moves = [places[id] - at if id in places else None for at, id in enumerate(ids[0])]
    said = ["new" if move is None else f"{'▲' if move > 0 else '▼'} {abs(move)}" if move else "=" for move in moves]
    assert texts(browser, "#chosen .moved") == said
    assert len(texts(browser, "#frozen .moved")) == len(set(ids[1]) - set(ids[0]))
    # At strength 0 nothing moves
    slider = find(browser, "#strength")
    slider.send_keys(Keys.HOME)
    until(browser, "#chosen .id", ids[1])
    assert texts(browser, "#strength-value") == ["0.00"]
    assert set(texts(browser, "#chosen .moved")) == {"="}
    assert texts(browser, "#said") == ["0 of 10 places differ from the frozen model's, 0 of them new."]
    Select(find(browser, "#prompt")).select_by_value("frozen")
    WebDriverWait(browser, 30).until(lambda b: not find(b, "#frozen-side").is_displayed())
    assert browser.get_log("browser") == []


def test_texts_of_documents_stay_texts(browser: webdriver.Chrome, hostile: Running) -> None:
    opened(browser, hostile)
    asked(browser, "<b>copper</b> & 'river'")
    until(browser, "#chosen h3", [HOSTILE] * 10)
    find(browser, "#chosen summary").click()
    assert texts(browser, "#chosen details[open] p") == [HOSTILE]
    assert browser.title == "Search with prompts"
    assert texts(browser, "#found img, #found b") == []
    blocked = (
        "return new Promise(done => { const it = document.createElement('script'); it.textContent = 'window.bad = 1'; "
    )
    assert browser.execute_script(f"{blocked} document.body.append(it); done(window.bad ?? 'blocked') }})") == "blocked"
    assert all("Content Security Policy" in each["message"] for each in browser.get_log("browser"))


def test_by_keyboard(browser: webdriver.Chrome, server: Running) -> None:
    opened(browser, server)
    assert browser.execute_script("return document.activeElement.id") == "query"
    browser.switch_to.active_element.send_keys(QUESTIONS[1], Keys.ENTER)
    WebDriverWait(browser, 30).until(lambda b: len(texts(b, "#chosen li")) == 10)
    order = []
    for _ in range(5):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        order.append(browser.execute_script("return document.activeElement.id || document.activeElement.tagName"))
    assert order == ["BUTTON", "prompt", "strength", "weight", "k"]
    assert find(browser, "#strength").get_attribute("aria-valuetext") == "1.00"
    assert find(browser, "#said").get_attribute("role") == "status"


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(browser: webdriver.Chrome, hostile: Running, width: int) -> None:
    opened(browser, hostile, width)
    asked(browser, QUESTIONS[0])
    WebDriverWait(browser, 30).until(lambda b: len(texts(b, "#chosen li")) == 10)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    sides = "return ['chosen', 'frozen'].map(id => document.getElementById(id).getBoundingClientRect().top)"
    chosen, frozen = browser.execute_script(sides)
    assert (chosen == frozen) if width == 1280 else (chosen < frozen), "on a phone the prompt's hits come first"
    heights = "return [...document.querySelectorAll('button, input, select')].map(element => element.offsetHeight)"
    assert min(height for height in browser.execute_script(heights) if height) >= 44


def test_light_and_dark(browser: webdriver.Chrome, server: Running) -> None:
    opened(browser, server)
    colours = []
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        colours.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(250, 249, 247)", "rgb(20, 21, 23)"]


def test_errors_and_the_token(browser: webdriver.Chrome, home: Path) -> None:
    with running(web_of(home, "short"), token="secret") as served:
        opened(browser, served)
        assert find(browser, "#locked").is_displayed()
        find(browser, "#query").send_keys("copper")
        find(browser, "#token").send_keys("wrong", Keys.ENTER)
        until(browser, "#said.wrong", ["expected the server's token in the header Authorization: Bearer ..."])
        find(browser, "#token").clear()
        find(browser, "#token").send_keys("secret", Keys.ENTER)
        WebDriverWait(browser, 30).until(lambda b: len(texts(b, "#chosen li")) == 10)
        assert not find(browser, "#locked").is_displayed()
        served.web.shelf.remove("short")
        asked(browser, "river")
        until(browser, "#said.wrong", ["there are no prompts named 'short'; there are frozen"])


def test_a_slider_that_nobody_moved_changes_nothing(browser: webdriver.Chrome, home: Path) -> None:
    web, seen = web_of(home, "short"), []
    real = web.batcher._work

    def work(rows: Any) -> Any:
        seen.extend(rows)
        return real(rows)

    web.batcher._work = work
    made = web.shelf.get("short")
    assert made is not None
    made.biencoder.strength, made.biencoder.bm25_weight = 0.33, 0.12
    with running(web) as served:
        opened(browser, served)
        browser.execute_script("document.getElementById('prompt').replaceChildren()")  # as where the start had failed
        asked(browser, QUESTIONS[0])
        WebDriverWait(browser, 30).until(lambda b: len(texts(b, "#chosen li")) == 10)
        assert texts(browser, "#strength-value, #weight-value") == ["0.33", "0.12"]
        assert (seen[0].strength, seen[0].weight) == (None, 0.12)
        find(browser, "#weight").send_keys(Keys.END)
        until(browser, "#weight-value", ["1.00"])
        WebDriverWait(browser, 30).until(lambda _: (seen[-1].strength, seen[-1].weight) == (None, 1.0))
