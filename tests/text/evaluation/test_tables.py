"""Tables against what stands in them: escapes, alignment, the best of a column, missing values."""

from __future__ import annotations

import csv
import io
import math
import re

import pytest

from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation import tables
from retrieval_prompts.evaluation.tables import Bold, Cell, Mean

DATASETS = {
    "sci_fact": {"bm25": {"ndcg@10": 0.6884}, "frozen": {"ndcg@10": 0.645}, "tuned": {"ndcg@10": 0.68799}},
    "x&y": {"bm25": {"ndcg@10": 0.5}, "tuned": {"ndcg@10": 0.07, "mrr@10": 0.9}},
    "arguana": {"bm25": {"ndcg@10": 0.3}, "frozen": {"ndcg@10": 0.4}, "tuned": {"ndcg@10": 0.5}},
}


def test_systems_table() -> None:
    header, rows = tables.systems_table(DATASETS, "ndcg@10")
    assert header == ["system", "sci_fact", "x&y", "arguana", "average of 2"]  # frozen has no x&y
    assert rows == [
        ["bm25", Bold(68.84), Bold(50.0), 30.0, 49.42],
        ["frozen", 64.5, None, 40.0, 52.25],
        ["tuned", Bold(68.799), 7.0, Bold(50.0), Bold(59.3995)],  # 68.8 is shown for both
    ]
    assert tables.systems_table(DATASETS, "ndcg@10", digits=2)[1][2][1] == 68.799
    assert tables.systems_table(DATASETS, "ndcg@10", best=None)[1][0] == ["bm25", 68.84, 50.0, 30.0, 49.42]


def test_the_average_is_over_what_all_systems_have() -> None:
    everywhere = {name: values for name, values in DATASETS.items() if name != "x&y"}
    header, rows = tables.systems_table(everywhere, "ndcg@10")
    assert (header[-1], rows[0][-1]) == ("average", 49.42)
    header, rows = tables.systems_table(DATASETS, "mrr@10")
    assert (header[-1], rows[2]) == ("average of 0", ["tuned", None, 90.0, None, None])  # alone in its column
    nan = {"a": {"x": {"m": math.nan}, "y": {"m": 0.5}}}
    assert tables.systems_table(nan, "m")[1] == [["x", None, None], ["y", 50.0, None]]
    assert tables.systems_table({}, "ndcg@10") == (["system", "average"], [])


def test_markdown() -> None:
    header, rows = tables.systems_table(DATASETS, "ndcg@10")
    assert tables.markdown(rows, header) == (
        "| system   |   sci_fact |      x&y |   arguana |   average of 2 |\n"
        "|:---------|-----------:|---------:|----------:|---------------:|\n"
        "| bm25     |   **68.8** | **50.0** |      30.0 |           49.4 |\n"
        "| frozen   |       64.5 |        - |      40.0 |           52.2 |\n"
        "| tuned    |   **68.8** |      7.0 |  **50.0** |       **59.4** |\n"
    )


def test_latex() -> None:
    header, rows = tables.systems_table(DATASETS, "ndcg@10")
    assert [" ".join(line.split()) for line in tables.latex(rows, header).splitlines()] == [
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r"system & sci\_fact & x\&y & arguana & average of 2 \\",
        r"\midrule",
        r"bm25 & \textbf{68.8} & \textbf{50.0} & 30.0 & 49.4 \\",
        r"frozen & 64.5 & -- & 40.0 & 52.2 \\",
        r"tuned & \textbf{68.8} & 7.0 & \textbf{50.0} & \textbf{59.4} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_metrics_in_percent() -> None:
    from rich.console import Console

    header, rows = tables.metrics_table({"frozen": {"ndcg@10": 0.5, "mrr@10": 0.25}, "BM25": {"ndcg@10": 0.6863}})
    assert header == ["system", "ndcg@10", "mrr@10"]
    assert rows == [["frozen", 50.0, 25.0], ["BM25", 68.63, None]]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables.rich_table(rows, header, title="a title"))
    title, *lines = console.export_text().splitlines()
    assert title.strip() == "a title"
    shown = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]
    assert [row for row in shown if row] == [header, ["frozen", "50.0", "25.0"], ["BM25", "68.6", "-"]]


def test_a_mean_shows_its_deviation() -> None:
    rows: list[list[Cell]] = [["a", Mean(71.25, 0.5)], ["b", None]]
    assert tables.markdown(rows, ["x", "y"]).splitlines()[1:3] == ["|:----|---------:|", "| a   | 71.2±0.5 |"]
    assert tables.csv(rows, ["x", "y"]).splitlines()[1] == "a,71.25"


def test_rich_table_breaks_headings_of_several_words_and_cuts_no_number() -> None:
    from rich.console import Console

    header = ["system", "base accuracy", "new accuracy", "harmonic mean", "calibration error"]
    console = Console(width=70, file=io.StringIO())
    console.print(tables.rich_table([["zero-shot-ensemble", *[Mean(71.24, 0.41)] * 4]], header))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("71.2±0.4") == 4
    assert {"harmonic", "mean", "accuracy"} <= set(shown.replace("│", " ").replace("┃", " ").split())


def test_rich_table_takes_names_as_they_are() -> None:
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables.rich_table([["[bold]a[/]", Bold(2.25)], ["b", None]], ["name", "[red]x"]))
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in console.export_text().splitlines()]
    assert [row for row in rows if row] == [["name", "[red]x"], ["[bold]a[/]", "2.2"], ["b", "-"]]


def test_csv_gives_back_what_was_put_in() -> None:
    rows: list[list[Cell]] = [['say "a, b"\nand c', 1 / 3, 3, Bold(0.1)], ["=1+1", None, math.nan, -2.5]]
    text = tables.csv(rows, ["a,b", "x", "n", "best"])
    assert list(csv.reader(io.StringIO(text))) == [
        ["a,b", "x", "n", "best"],
        ['say "a, b"\nand c', repr(1 / 3), "3", "0.1"],
        ["=1+1", "", "", "-2.5"],
    ]
    assert text.endswith("\n") and "\r" not in text


@pytest.mark.parametrize(
    ("text", "markdown", "latex"),
    [
        ("a|b", r"a\|b", "a|b"),
        ("tuned_v2", "tuned_v2", r"tuned\_v2"),
        ("_it_", r"\_it\_", r"\_it\_"),
        ("5 % & $3 #1", "5 % & $3 #1", r"5 \% \& \$3 \#1"),
        ("<b>&amp;</b>", r"\<b>\&amp;\</b>", r"\ensuremath{<}b\ensuremath{>}\&amp;\ensuremath{<}/b\ensuremath{>}"),
        ("*x* `y` ~z~", r"\*x\* \`y\` \~z\~", r"*x* `y` \textasciitilde{}z\textasciitilde{}"),
        ("a\\b^{2}", r"a\\b^{2}", r"a\textbackslash{}b\^{}\{2\}"),
        ("[x](y) [-0.8, +2.5]", r"[x\](y) [-0.8, +2.5]", "[x](y) [-0.8, +2.5]"),
        ("two\n lines\t", "two lines", "two lines"),
        ("\ue000fake\ue001", "fake", "fake"),
        ("007", "007", "007"),  # a name stays what it is
    ],
)
def test_names_are_escaped(text: str, markdown: str, latex: str) -> None:
    lines = tables.markdown([[text, 1.0], [Bold(text), 2.0]], ["name", text]).splitlines()
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert rows[0] == ["name", markdown]
    assert rows[2:] == [[markdown, "1.0"], [f"**{markdown}**", "2.0"]]
    lines = tables.latex([[text, 1.0], [Bold(text), 2.0]], ["name", text]).splitlines()
    tex = [" ".join(line.split()) for line in lines]
    assert tex[2] == rf"name & {latex} \\"
    assert tex[4:6] == [rf"{latex} & 1.0 \\", rf"\textbf{{{latex}}} & 2.0 \\"]


def test_digits_and_missing_values() -> None:
    rows: list[list[Cell]] = [[1.0, 2, None], [0.125, -3, Bold(0.5)]]
    assert tables.markdown(rows, ["a", "b", "c"], digits=3).splitlines()[2:] == [
        "| 1.000 |   2 |         - |",
        "| 0.125 |  -3 | **0.500** |",
    ]


def test_crooked_tables_are_refused() -> None:
    for write in (tables.markdown, tables.latex, tables.csv, tables.rich_table):
        with pytest.raises(UserError, match="row 2 of the table has 1 cells, but its header has 2"):
            write([["a", 1.0], ["b"]], ["x", "y"])
    for shown in (tables.markdown, tables.latex, tables.rich_table):
        with pytest.raises(UserError, match="no rows to make a table of"):
            shown([], ["x"])
