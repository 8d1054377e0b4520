"""The page: whole without JavaScript, closed to whatever a text says, bounded in size, readable in both colours."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import toy_reports
from parsed_page import Parsed

from retrieval_prompts.errors import UserError
from retrieval_prompts.report import charts, embed
from retrieval_prompts.report.content import Curve, Item, Report
from retrieval_prompts.report.page import render, write_report

HOSTILE = "</script><!-- <script>alert(1)</script> \"'><img src=x onerror=alert(1)> &amp; \u2028"


def hostile() -> Report:
    query = toy_reports.query(0, 0.0, 1.0, id=HOSTILE, text=HOSTILE)
    return toy_reports.report(
        toy_reports.section(
            name=HOSTILE,
            queries=[query],
            documents={"d0": Item(HOSTILE, HOSTILE), "x0": Item(HOSTILE)},
            facts=[HOSTILE],
            loss=[Curve(HOSTILE, [(0, 1.0), (1, 2.0)])],
            words={HOSTILE: [[(HOSTILE, 0.5)]]},
            systems={"frozen": {HOSTILE: 0.5}, "tuned": {HOSTILE: 0.5}, HOSTILE: {}},
            metric=HOSTILE,
        ),
        title=HOSTILE,
        notes=[HOSTILE],
    )


def test_the_words_tables_and_plots_are_in_the_html_itself() -> None:
    page = Parsed(render(toy_reports.report()))
    for words in (
        "Tuned is 6.2 points of nDCG@10 better than frozen",
        "tuned against frozen",
        "10 helped",
        "20 unchanged",
        "question number 0",
        "Training loss",
        "fox 0.31",
        "dog −0.20",
        "52 documents",
        "the 25 queries with the largest changes",
    ):
        assert words in page.text, words
    assert sum(tag == "polyline" for tag, _ in page.tags) == 2
    labels = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg" and "role" in attributes]
    assert labels[0] == "10 queries helped, 20 unchanged, 10 hurt"
    assert labels[1] == "Training loss. loss: from 2 at step 1 to 1.25 at 3, highest 2 at 1"


def test_the_first_screen_says_what_to_do_and_how_it_came_about() -> None:
    verdict = ["Use the prompts: no.", "Not sure: that may be chance."]
    about = [("Made", "2026-12-01, 05:49 (UTC)"), ("Command", "retrieval-prompts tune 'my data' --out P")]
    page = Parsed(render(toy_reports.report(verdict=verdict, about=about)))
    assert page.text.index(verdict[0]) < page.text.index(verdict[1]) < page.text.index("Made 2026-12-01")
    assert page.text.index("Command retrieval-prompts tune 'my data' --out P") < page.text.index("toy test")
    assert "frozen the model as it is" in page.text
    assert "BM25" not in page.text  # no word is explained that does not occur


def test_what_a_text_says_stays_text() -> None:
    html = render(hostile())
    page = Parsed(html)
    assert "onerror" not in {name for _, attributes in page.tags for name in attributes}
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert not any(tag == "img" for tag, _ in page.tags)
    assert "<!--" not in html
    assert HOSTILE.replace("\u2028", " ").strip() in page.text
    data = json.loads(page.scripts[1])
    assert data["name"] == HOSTILE
    assert data["queries"][0][0] == HOSTILE
    assert not re.search("[<>&\u2028]", page.scripts[1])


def test_nothing_is_loaded_from_anywhere() -> None:
    page = Parsed(render(toy_reports.report(toy_reports.section(), toy_reports.section())))
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "base"}
        assert not {"srcset", "action", "style"} & attributes.keys()
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    html = render(toy_reports.report())
    assert "url(" not in html and "@import" not in html
    assert set(re.findall(r"https?://[^\"\s]*", html)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_only_its_own_script_and_style_may_run() -> None:
    policy = Parsed(render(toy_reports.report())).policy
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_several_data_sets_have_a_table_with_averages_and_a_list_of_links() -> None:
    parts = [toy_reports.section(name=name) for name in ("first", "second")]
    averages = {"frozen": {"ndcg@10": 0.5}, "tuned": {"ndcg@10": 0.55}}
    page = Parsed(render(toy_reports.report(*parts, averages=averages)))
    assert "System first second Average frozen 62.5 62.5 50.0 tuned 68.8 (best) 68.8 (best) 55.0 (best)" in page.text
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    ids = {f"#{attributes['id']}" for _, attributes in page.tags if "id" in attributes}
    assert {"#all", "#s1", "#s2"} <= set(links)
    assert set(links) <= ids


def test_a_report_of_one_system_without_queries_is_a_page_too() -> None:
    bare = toy_reports.section(systems={"frozen": {"ndcg@10": 0.5}}, tests={}, queries=[], loss=[], dev=[], words={})
    text = Parsed(render(toy_reports.report(bare))).text
    assert "Frozen reaches 50.0 nDCG@10" in text
    assert "Query by query" not in text


def test_a_system_without_runs_is_in_the_table_alone() -> None:
    more = toy_reports.section(systems={"lora": {"ndcg@10": 0.7}, "frozen": {"ndcg@10": 0.5}})
    data = embed.payload(more)
    assert "LoRA 70.0 (best)" in Parsed(render(toy_reports.report(more))).text
    assert data["systems"] == [["frozen", "frozen"], ["tuned", "tuned"]]
    assert (data["baseline"], data["system"]) == ("frozen", "tuned")


def test_the_largest_changes_keep_their_rankings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "RANKED", 12)
    monkeypatch.setattr(embed, "LISTED", 30)
    whole = toy_reports.section()
    data = embed.payload(whole)
    assert len(data["queries"]) == 30
    assert [abs(query[2][1] - query[2][0]) for query in data["queries"]] == [0.5] * 10 + [0.25] * 10 + [0.0] * 10
    assert [len(query) for query in data["queries"]] == [5] * 12 + [3] * 18
    text = Parsed(render(toy_reports.report(whole))).text
    assert "10 of 40 queries are left out here" in text
    assert "Rankings are kept for the 12 queries with the largest changes and not shown for the other 18" in text


def test_rankings_are_cut_documents_stored_once_and_ranks_kept() -> None:
    deep = [(f"x{number}", 1.0 - number / 100) for number in range(40)]
    late = toy_reports.query(0, 0.0, 1.0, rankings={"frozen": [*deep, ("d0", 0.1)], "tuned": [("d0", 0.98765)]})
    data = embed.payload(toy_reports.section(queries=[late]))
    (query,) = data["queries"]
    assert [len(ranking) for ranking in query[4]] == [10, 1]
    assert query[4][1] == [[0, 0.9877]]
    assert query[3] == [[0, 1, [41, 1]]]  # document, grade, rank of each system
    ids = [document[0] for document in data["documents"]]
    assert ids == ["d0", *(f"x{number}" for number in range(10))]


def test_texts_are_cut_and_more_so_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = {"d0": Item("", "word " * 1000)}
    one = toy_reports.section(queries=[toy_reports.query(0, 0, 1)], documents=documents)
    (text,) = (text for id, _, text, *_ in embed.payload(one)["documents"] if id == "d0")
    assert len(text) <= embed.TEXT and text.endswith("word…")
    monkeypatch.setattr(embed, "BUDGET", 10 * 150)
    assert max(len(text) for _, _, text, *_ in embed.payload(one)["documents"]) <= 150


def test_pictures_are_shown_and_only_data_addresses_are_taken() -> None:
    seen = toy_reports.query(0, 0, 1, picture=toy_reports.PIXEL)
    one = toy_reports.section(queries=[seen], documents={"d0": Item("cat", picture=toy_reports.PIXEL)})
    assert embed.payload(one)["documents"][0] == ["d0", "cat", "", toy_reports.PIXEL]
    assert [a["src"] for tag, a in Parsed(render(toy_reports.report(one))).tags if tag == "img"] == [toy_reports.PIXEL]
    far = toy_reports.section(documents={"d0": Item("cat", picture="https://example.org/cat.png")})
    with pytest.raises(UserError, match=r"^the picture of document 'd0' must be a data:image/ address, got 'https:"):
        render(toy_reports.report(far))


def test_scores_that_are_no_numbers_are_left_out() -> None:
    odd = toy_reports.query(0, 0, 1, rankings={"frozen": [("d0", math.nan)], "tuned": [("d0", math.inf)]})
    data = json.loads(embed.embedded(embed.payload(toy_reports.section(queries=[odd]))))
    assert data["queries"][0][4] == [[[0, None]], [[0, None]]]


def test_a_report_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, toy_reports.report())
    with pytest.raises(UserError, match="exists already"):
        write_report(path, toy_reports.report())
    write_report(path, toy_reports.report(title="Another"), overwrite=True)
    assert "<h1>Another</h1>" in path.read_text(encoding="utf-8")


def test_half_of_a_surrogate_pair_does_not_stop_the_page(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", toy_reports.report(title="broken \ud83d"))
    assert "<h1>broken ?</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_sorted_bars() -> None:
    above, below = charts.distribution_paths([1.0, 0.5, 0.5, 0.0, -0.25])
    assert above == "M0 100V0H200V100ZM200 100V50H600V100Z"
    assert below == "M800 100V125H1000V100Z"
    many = charts.distribution_paths([1 - number / 50_000 for number in range(100_000)])
    assert many[0].count("M") + many[1].count("M") <= charts.COLUMNS


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0.643, 0.688, [0.64, 0.66, 0.68, 0.7]),
        (0, 300, [0, 100, 200, 300]),
        (-1.5, 2.5, [-2, -1, 0, 1, 2, 3]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == expected


def test_a_line_of_one_point_or_none_is_drawn_or_left_out() -> None:
    assert charts.line_chart([Curve("a", [(1, math.nan)])], title="t", x="x", y="y") == ""
    one = charts.line_chart([Curve("a", [(1, 0.5)])], title="t", x="x", y="y", percent=True)
    assert 'points="214.0,' in one and "a: 50 at x 1" in one


def test_text_has_contrast_in_light_and_dark() -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text; 1.4.11: 3 to 1 for the edges of controls."""
    style = (Path(charts.__file__).parent / "style.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+): light-dark\((#\w{6}, #\w{6})\)", style))
    for mode in (0, 1):
        value = {name: _luminance(both.split(", ")[mode]) for name, both in colours.items()}
        for paper in ("paper", "card", "well", "tint"):
            for ink in ("ink", "soft", "accent", "up", "down", "right", "wrong"):
                assert _contrast(value[ink], value[paper]) >= 4.5, (mode, ink, paper)
        for paper in ("paper", "card"):
            for line in ("edge", "c0", "c1", "c2", "c3", "c4", "c5"):
                assert _contrast(value[line], value[paper]) >= 3, (mode, line, paper)


def _luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_a_matrix_is_escaped_and_said_in_words() -> None:
    from retrieval_prompts.report.charts import matrix
    from retrieval_prompts.report.content import Matrix

    nasty = "<b>&\"'"
    drawn = str(matrix(Matrix("Rows <right>", [nasty, "n" * 40], [[3, 1], [0, 1500]], [4, 1500], f"Taken: {nasty}")))
    parsed = Parsed(drawn)
    (svg,) = parsed.all("svg")
    assert svg["role"] == "img" and svg["aria-label"] == f"Rows <right>. Taken: {nasty}"
    assert [cell["class"] for cell in parsed.all("rect")] == ["shade", "miss", "none", "shade"]
    assert [cell["fill-opacity"] for cell in parsed.all("rect")] == ["0.757", "0.333", "0.12", "0.97"]
    assert f"{nasty}, answered {'n' * 40}: 1" in parsed.text and not parsed.all("b")
    assert f"{'n' * 21}…" in parsed.text, "a long name is cut"
