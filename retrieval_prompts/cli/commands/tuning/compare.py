"""retrieval-prompts compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import JsonFile, Overwrite
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from retrieval_prompts.evaluation.comparison import Average, Compared
    from retrieval_prompts.evaluation.tables import Table
    from retrieval_prompts.report.content import Item, Section

SUFFIXES = (".gz", ".trec", ".run", ".res", ".txt", ".tsv", ".qrels")
TITLES = (
    "x 100; detectable: the difference that this many queries find 4 times out of 5",
    "three paired tests, none of them adjusted, and effect sizes",
)
DEEP, SHOWN = 100, 10  # hits of a ranking that a report knows, and those whose text it shows


def compare(
    run_a: Annotated[str, typer.Argument(help="TREC run of system A, the baseline (plain or .gz)", metavar="RUN_A")],
    run_b: Annotated[str, typer.Argument(help="TREC run of system B; differences are B - A", metavar="RUN_B")],
    qrels: Annotated[str, typer.Option(help="judgements: BEIR's .tsv, TREC's qrels, or a BEIR folder (see --split)")],
    split: Annotated[str, typer.Option(help="the split, where --qrels is a BEIR folder")] = "test",
    datasets: Annotated[
        str | None, typer.Option(help="data sets a,b,c: each fills the {} in RUN_A, RUN_B, --qrels and --data")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="ndcg@k, mrr@k, map@k, recall@k, precision@k, hit@k; several: repeat, or commas  [default: ndcg@10]"
        ),
    ] = None,
    tests: Annotated[
        str, typer.Option(help="permutation, or all: t-test, Wilcoxon and effect sizes too")
    ] = "permutation",
    correction: Annotated[
        str, typer.Option(help="of p for several data sets, metric by metric: holm, bh or none")
    ] = "holm",
    matters: Annotated[
        float, typer.Option(help="the smallest difference that matters to you, in points (x 100)")
    ] = 1.0,
    drop_identical: Annotated[
        bool,
        typer.Option("--drop-identical/--keep-identical", help="drop documents with their query's id, as BEIR does"),
    ] = True,
    names: Annotated[
        str | None, typer.Option(help="what to call the systems: A,B  [default: the files' names]")
    ] = None,
    json_file: JsonFile = None,
    per_query: Annotated[Path | None, typer.Option(help="write each query's values here as CSV")] = None,
    markdown: Annotated[Path | None, typer.Option(help="write the table here as Markdown")] = None,
    latex: Annotated[Path | None, typer.Option(help="write the table here as LaTeX (booktabs)")] = None,
    report: Annotated[Path | None, typer.Option(help="write an HTML page here: every query, both rankings")] = None,
    data: Annotated[
        str | None, typer.Option(help="BEIR folder with the texts for --report  [default: --qrels, if it is a folder]")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Are two systems different? Paired tests on any two TREC runs; p < 0.05 is called different.

    Every judged query counts; one that a run does not have counts as 0.
    """
    from retrieval_prompts.files import write_bytes

    outputs = (json_file, per_query, markdown, latex, report)
    overwrite = console.cut_short(*outputs) or overwrite
    console.check_outputs(*outputs, overwrite=overwrite)
    from retrieval_prompts.evaluation import comparison_words, tables
    from retrieval_prompts.evaluation.comparison import average, corrected
    from retrieval_prompts.evaluation.metrics import parse_metric
    from retrieval_prompts.evaluation.significance import adjust

    adjust([], correction)  # refuses an unknown one before files are read
    if data is not None and report is None:
        raise UserError("--data holds texts for --report; pass --report as well")
    if tests not in ("permutation", "all"):
        raise UserError(f"unknown --tests {tests!r}; expected permutation or all")
    if not 0.01 <= matters <= 100:
        raise UserError(f"--matters is a difference in points, from 0.01 to 100, got {matters}")
    metrics = list(dict.fromkeys(name.strip() for each in metric or ["ndcg@10"] for name in each.split(",")))
    for name in metrics:
        parse_metric(name)
    places = _places({"RUN_A": run_a, "RUN_B": run_b, "--qrels": qrels, "--data": data}, datasets)
    systems = _names(run_a, run_b, names, places)
    compared = corrected(
        {name: _compare(name, place, split, metrics, not drop_identical) for name, place in places.items()}, correction
    )
    averages = {name: average(compared, name) for name in metrics} if len(compared) > 1 else {}
    shown = [comparison_words.results_table(compared, systems, correction)]
    if tests == "all":
        shown.append(comparison_words.tests_table(compared))
    sentences, notes = comparison_words.words(compared, averages, systems, matters / 100, correction)
    say = console.printer(json_file)
    _say(say, compared, systems, shown, [*sentences, *(f"note: {note}" for note in notes)])
    with console.together(*outputs):
        if json_file is not None:
            found = {
                "a": {"name": systems[0], "run": run_a},
                "b": {"name": systems[1], "run": run_b},
                "qrels": qrels,
                "correction": correction,
                "matters": matters / 100,
                "identical_dropped": drop_identical,
                "datasets": {name: comparison_words.as_dict(each, matters / 100) for name, each in compared.items()},
                "averages": {name: each.as_dict() for name, each in averages.items()},
                "sentences": sentences,
                "notes": notes,
            }
            console.write_result(json_file, found)
        if per_query is not None:
            header, rows = comparison_words.per_query_table(compared, systems)
            write_bytes(per_query, tables.csv(rows, header).encode())
        for path, write in ((markdown, tables.markdown), (latex, tables.latex)):
            if path is not None:
                write_bytes(path, "\n".join(write(rows, header) for header, rows in shown).encode())
        if report is not None:
            _write_report(report, compared, averages, systems, places, split, [*sentences, *notes], overwrite)
    for path in (per_query, markdown, latex, report):
        if path is not None:
            say(f"written: {path}")


def _names(run_a: str, run_b: str, given: str | None, places: Mapping[str, Any]) -> tuple[str, str]:
    """What the systems are called: as given, or after their files without the data set's name, or A and B."""
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        if len(names) != 2 or not all(names) or names[0] == names[1]:
            raise UserError(f"--names takes two different names with a comma between, got {given!r}")
        return names[0], names[1]
    dataset = next(iter(places)) if len(places) == 1 else "{}"
    stems = [_stem(Path(path)).replace("{}", "").removeprefix(dataset).strip("._- ") for path in (run_a, run_b)]
    if not all(stems) or stems[0] == stems[1]:
        stems = [f"{Path(path).parent.name}/{_stem(Path(path))}".strip("/") for path in (run_a, run_b)]
    return (stems[0], stems[1]) if stems[0] != stems[1] else ("A", "B")


def _stem(path: Path) -> str:
    while path.suffix in SUFFIXES and path.stem:
        path = path.with_suffix("")
    return path.name


def _places(patterns: Mapping[str, str | None], datasets: str | None) -> dict[str, dict[str, Path]]:
    """Data set -> what is asked for -> path, with each {} filled in."""
    given = {label: pattern for label, pattern in patterns.items() if pattern is not None}
    open_ = [label for label, pattern in given.items() if "{}" in pattern]
    if datasets is None:
        if open_:
            raise UserError(f"{', '.join(open_)}: name the data sets that fill in the {{}}: --datasets a,b,c")
        path = Path(given["--qrels"]).resolve()
        folder = path if path.is_dir() else path.parent.parent if path.parent.name == "qrels" else None
        return {folder.name if folder else _stem(path): {label: Path(value) for label, value in given.items()}}
    names = [name.strip() for name in datasets.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise UserError(f"--datasets takes different names with commas between, got {datasets!r}")
    if closed := [label for label in given if label not in open_]:
        raise UserError(f"with --datasets, {', '.join(closed)} must hold {{}}, where each name goes")
    return {name: {label: Path(value.replace("{}", name)) for label, value in given.items()} for name in names}


def _compare(name: str, place: Mapping[str, Path], split: str, metrics: list[str], keep_identical: bool) -> Compared:
    from retrieval_prompts.data.judgements import read_qrels
    from retrieval_prompts.evaluation.comparison import compare_runs
    from retrieval_prompts.evaluation.trec_runs import read_run

    qrels = read_qrels(place["--qrels"], split)
    a, b = (read_run(place[label]) for label in ("RUN_A", "RUN_B"))
    try:
        return compare_runs(qrels, a, b, metrics, keep_identical=keep_identical)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _say(
    say: Any, compared: Mapping[str, Compared], systems: tuple[str, str], shown: list[Table], sentences: list[str]
) -> None:
    from retrieval_prompts.evaluation.comparison_words import ranking_line
    from retrieval_prompts.evaluation.tables import rich_table

    if len(compared) == 1:
        for name, each in compared.items():
            say(f"{name}: {len(each.qrels):,} judged queries")
            for system, ranking in zip(systems, each.rankings, strict=True):
                say(f"  {ranking_line(system, ranking, each)}")
    for title, (header, rows) in zip(TITLES, shown, strict=False):
        place = header.index("metric")
        metrics = {str(row[place]) for row in rows}
        if len(metrics) == 1 and place > 0:  # said once, so that the table fits a narrow terminal
            say(f"\n{metrics.pop()} {title}")
            rows = [[*row[:place], *row[place + 1 :]] for row in rows]
            say(rich_table(rows, [name for name in header if name != "metric"]))
        else:
            say(f"\n{title}")
            say(rich_table(rows, header))
    for sentence in sentences:
        say(sentence)


def _write_report(
    path: Path,
    compared: Mapping[str, Compared],
    averages: Mapping[str, Average],
    systems: tuple[str, str],
    places: Mapping[str, Mapping[str, Path]],
    split: str,
    notes: list[str],
    overwrite: bool,
) -> None:
    from retrieval_prompts.experiments.records.provenance import Provenance
    from retrieval_prompts.report import about
    from retrieval_prompts.report.content import Report
    from retrieval_prompts.report.page import write_report

    sections = []
    for name, each in compared.items():
        place = places[name]
        texts, judgements = place.get("--data"), place["--qrels"]
        if texts is None and any((judgements / f"corpus.jsonl{gz}").is_file() for gz in ("", ".gz")):
            texts = judgements
        which = split if judgements.is_dir() else _stem(judgements)
        sections.append(_section(name, which, each, systems, texts))
    means = {
        system: {metric: (each.a, each.b)[side] for metric, each in averages.items()}
        for side, system in enumerate(systems)
    }
    title = f"{systems[1]} against {systems[0]}"
    rows = about.origin(Provenance.now())
    page = Report(title, sections, notes=notes, averages=means if averages else {}, about=rows)
    write_report(path, page, overwrite=overwrite)


def _section(name: str, split: str, compared: Compared, systems: tuple[str, str], folder: Path | None) -> Section:
    """A section about the first metric; with the texts of a BEIR folder, or ids alone."""
    from retrieval_prompts.data.beir_folder import load
    from retrieval_prompts.evaluation.comparison_words import ranking_line
    from retrieval_prompts.evaluation.metrics import best_first
    from retrieval_prompts.report.content import Item, Query, Section

    dataset = load(folder) if folder else None
    metric = next(iter(compared.metrics))
    queries = [
        Query(
            id=query,
            text=dataset.queries.get(query, "") if dataset else "",
            relevant={id: grade for id, grade in grades.items() if grade > 0},
            rankings={
                system: best_first(run.get(query, {}))[:DEEP]
                for system, run in zip(systems, compared.runs, strict=True)
            },
            scores={system: scores[metric][query] for system, scores in zip(systems, compared.scores, strict=True)},
        )
        for query, grades in compared.qrels.items()
    ]
    documents: dict[str, Item] = {}
    if dataset:
        wanted = {id for query in queries for hits in query.rankings.values() for id, _ in hits[:SHOWN]}
        wanted = wanted.union(*(query.relevant for query in queries))
        for position, id in enumerate(dataset.corpus.ids):
            if id in wanted:
                document = dataset.corpus[position]
                documents[id] = Item(document.title, document.text)
    a, b = systems
    return Section(
        name=name,
        split=split,
        metric=metric,
        systems={
            system: {metric: (paired.a, paired.b)[side] for metric, paired in compared.metrics.items()}
            for side, system in enumerate(systems)
        },
        tests={
            f"{b}_vs_{a}": {
                **compared.metrics[metric].test.as_dict(),
                "p_adjusted": compared.metrics[metric].p_adjusted,
                "effect_size": compared.metrics[metric].d_z,
            }
        },
        queries=queries,
        documents=documents,
        facts=[ranking_line(system, each, compared) for system, each in zip(systems, compared.rankings, strict=True)],
        baseline=a,
        system=b,
    )
