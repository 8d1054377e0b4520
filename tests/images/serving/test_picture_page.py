"""The page of a server of pictures in a headless Chromium: what moved, uploads, hostile texts, keyboard, token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from browsers import NEEDED, chromium, find, texts
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from toy_picture_server import Home, sent
from toy_server import Running, running

pytestmark = NEEDED
HOSTILE = "\"'></script><img src=x onerror='document.title=1'><b>bold</b>"
WORDS = "a blue picture"
SHOWN = "return [...document.querySelectorAll('#chosen img')].map(each => each.complete && each.naturalWidth)"


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def hostile(home: Home) -> Iterator[Running]:
    """A server whose pictures have markup as ids, titles and texts."""
    web = home.web("coop")
    real = web.batcher._work

    def work(rows: Any) -> Any:
        def spoiled(hits: Any) -> Any:
            return hits and [replace(hit, id=f"{HOSTILE}{hit.id}", title=HOSTILE, text=HOSTILE) for hit in hits]

        return [replace(each, hits=spoiled(each.hits), frozen=spoiled(each.frozen)) for each in real(rows)]

    web.batcher._work = work
    with running(web) as found:
        yield found


def opened(browser: webdriver.Chrome, served: Running, width: int = 1280) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"http://127.0.0.1:{served.port}/")
    until(browser, lambda: texts(browser, "#prompt option") or texts(browser, "#said.wrong"))


def until(browser: webdriver.Chrome, holds: Any) -> None:
    WebDriverWait(browser, 30).until(lambda _: holds())


def asked(browser: webdriver.Chrome, words: str) -> None:
    find(browser, "#query").clear()
    find(browser, "#query").send_keys(words, Keys.ENTER)


def test_pictures_of_both_side_by_side(browser: webdriver.Chrome, server: Running) -> None:
    opened(browser, server)
    assert texts(browser, "#facts") == ["24 pictures, tiny"]
    asked(browser, WORDS)
    found = server.search(query=WORDS, prompt="coop", frozen=True, k=12)
    ids = [[hit["id"] for hit in found[side]] for side in ("hits", "frozen")]
    assert ids[0] != ids[1], "the prompt changes something"
    until(browser, lambda: [texts(browser, f"#{side} .id") for side in ("chosen", "frozen")] == ids)
    places = {id: place for place, id in enumerate(ids[1])}
    moves = [places[id] - at if id in places else None for at, id in enumerate(ids[0])]
    said = ["new" if move is None else f"{'▲' if move > 0 else '▼'} {abs(move)}" if move else "=" for move in moves]
    assert texts(browser, "#chosen .moved") == said
    browser.execute_script("document.querySelectorAll('img').forEach(each => { each.loading = 'eager' })")
    until(browser, lambda: set(browser.execute_script(SHOWN)) == {24})
    find(browser, "#strength").send_keys(Keys.HOME)
    until(browser, lambda: texts(browser, "#chosen .id") == ids[1])
    assert texts(browser, "#said") == ["0 of 12 places differ from the frozen model's, 0 of them new."]
    Select(find(browser, "#prompt")).select_by_value("frozen")
    until(browser, lambda: not find(browser, "#frozen-side").is_displayed())
    Select(find(browser, "#prompt")).select_by_value("cocoop")
    until(browser, lambda: "these prompts cannot serve a search" in texts(browser, "#said.wrong")[0])
    assert all("422" in each["message"] for each in browser.get_log("browser"))


def test_a_picture_that_is_given(browser: webdriver.Chrome, server: Running, home: Home) -> None:
    opened(browser, server)
    picture = home.picture("pink1")
    Select(find(browser, "#prompt")).select_by_value("frozen")
    find(browser, "#upload").send_keys(str(picture))
    hits = [hit["id"] for hit in server.search(image=sent(picture), k=12)["hits"]]
    until(browser, lambda: texts(browser, "#chosen .id") == hits)
    assert texts(browser, "#said") == ["12 pictures."]
    assert browser.execute_script("return document.getElementById('preview').naturalWidth") == 24
    find(browser, "#classes").send_keys("pink, blue , ,violet", Keys.ENTER)
    Select(find(browser, "#prompt")).select_by_value("half")
    body = {"image": sent(picture), "classes": ["pink", "blue", "violet"], "prompt": "half", "frozen": True}
    answer = server.call("POST", "/classify", body).json
    for side, name in (("chosen", "classes"), ("frozen", "frozen")):
        expected = [(each["class"], f"{100 * each['probability']:.1f} %") for each in answer[name]]
        until(browser, lambda s=side, e=expected: texts(browser, f"#{s} .id") == [one for one, _ in e])
        assert texts(browser, f"#{side} .head span:nth-child(2)") == [share for _, share in expected]
    find(browser, "#classes").clear()
    find(browser, "#classes").send_keys(Keys.ENTER)
    own = server.web.shelf.get("half").classifier.classes
    until(browser, lambda: sorted(texts(browser, "#chosen .id")) == sorted(own))
    find(browser, "#drop").click()
    assert not find(browser, "#given").is_displayed()
    find(browser, "#upload").send_keys(str(picture))
    until(browser, lambda: sorted(texts(browser, "#chosen .id")) == sorted(own))
    find(browser, "#query").send_keys(WORDS, Keys.ENTER)  # words take the picture's place
    assert not find(browser, "#given").is_displayed()
    until(browser, lambda: len(texts(browser, "#chosen.pictures li")) == 12)
    assert browser.get_log("browser") == []


def test_what_is_no_picture_is_said(browser: webdriver.Chrome, server: Running, tmp_path: Any) -> None:
    opened(browser, server)
    (tmp_path / "page.html").write_text(HOSTILE)
    find(browser, "#upload").send_keys(str(tmp_path / "page.html"))
    until(browser, lambda: "cannot be read as a picture" in "".join(texts(browser, "#said.wrong")))
    assert browser.title == "Pictures with prompts"
    assert find(browser, "#preview").get_attribute("src") is None
    browser.get_log("browser")


def test_what_pictures_say_stays_text(browser: webdriver.Chrome, hostile: Running) -> None:
    opened(browser, hostile)
    asked(browser, "<b>blue</b>")
    until(browser, lambda: texts(browser, "#chosen h3") == [HOSTILE] * 12)
    assert texts(browser, "#chosen p") == [HOSTILE] * 12
    assert browser.title == "Pictures with prompts"
    assert texts(browser, "#found b") == []
    addresses = "return [...document.querySelectorAll('#found img')].map(each => each.getAttribute('src'))"
    assert all(each.startswith("pictures/") for each in browser.execute_script(addresses))
    assert find(browser, "#chosen img").get_attribute("alt") == HOSTILE
    find(browser, "#upload").send_keys(str(hostile.web.shelf.index.manifest["encoder"]["images"]) + "/blue0.png")
    find(browser, "#classes").send_keys("<b>x</b>, b", Keys.ENTER)
    until(browser, lambda: "<b>x</b>" in texts(browser, "#chosen .id"))
    assert browser.title == "Pictures with prompts" and texts(browser, "#found b") == []
    assert browser.get_log("browser") == []


def test_by_keyboard(browser: webdriver.Chrome, server: Running) -> None:
    opened(browser, server)
    browser.switch_to.active_element.send_keys(WORDS, Keys.ENTER)
    until(browser, lambda: len(texts(browser, "#chosen li")) == 12)
    order = []
    for _ in range(5):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        order.append(browser.execute_script("return document.activeElement.id || document.activeElement.tagName"))
    assert order == ["BUTTON", "upload", "prompt", "strength", "k"]
    labels = "return [...document.querySelectorAll('input, select')].map(each => each.hidden || each.labels.length)"
    assert all(browser.execute_script(labels))


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(browser: webdriver.Chrome, hostile: Running, width: int) -> None:
    opened(browser, hostile, width)
    asked(browser, WORDS)
    until(browser, lambda: len(texts(browser, "#chosen li")) == 12)
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
        for name in ("body", "#classes"):
            script = f"return getComputedStyle(document.querySelector('{name}')).backgroundColor"
            colours.append(browser.execute_script(script))
    assert colours == ["rgb(250, 249, 247)"] * 2 + ["rgb(20, 21, 23)"] * 2


def test_with_a_token(browser: webdriver.Chrome, home: Home) -> None:
    with running(home.web("coop"), token="secret") as served:
        opened(browser, served)
        find(browser, "#query").send_keys(WORDS)
        find(browser, "#token").send_keys("secret", Keys.ENTER)
        until(browser, lambda: len(texts(browser, "#chosen li")) == 12)
        browser.execute_script("document.querySelectorAll('img').forEach(each => { each.loading = 'eager' })")
        until(browser, lambda: set(browser.execute_script(SHOWN)) == {24})
        said = [each["message"] for each in browser.get_log("browser")]
        assert all("401" in each for each in said), said
