"""What is left of two prompts' gains when they are one? Average, concatenation, and a mixture chosen for each query.

    retrieval-prompts tune DATA/scifact --out scifact; retrieval-prompts tune DATA/conala --out conala
    python eval/merge_prompts.py scifact conala --data DATA/scifact DATA/conala --elsewhere DATA/cranfield \
        --json eval/results/merge-scifact-conala.json

Temperature and floor of the mixture are chosen by the mean of nDCG@10 over the dev queries of both data sets, which are
not among the training queries that its keys are made of; test queries, there and elsewhere, are only reported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from retrieval_prompts import BiEncoder, UserError, load
from retrieval_prompts.evaluation.metrics import HEADLINE, per_query
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.evaluation.tables import markdown
from retrieval_prompts.experiments.result_file import made_on
from retrieval_prompts.experiments.selection.keys import check_tuned_on, key_of
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.prompts.merging import Source, merge
from retrieval_prompts.prompts.mixture import MixturePrompt

TEMPERATURES, FLOORS = (0.01, 0.03, 0.1), (0.05, 0.25)
Scores = dict[str, float]  # query -> nDCG@10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, nargs="+", help="prompt folders over one model")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="what each was tuned on, in their order")
    parser.add_argument("--elsewhere", type=Path, nargs="*", default=[], help="BEIR folders that none was tuned on")
    parser.add_argument("--json", type=Path, required=True, help="the result file")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    check_output(options.json, overwrite=options.overwrite)
    if len(options.prompts) != len(options.data):
        raise UserError("--data: expected one for each prompt folder")
    single = [BiEncoder.load(prompts=options.prompts[0], device="cpu")]
    tower = single[0].tower
    single += [BiEncoder.with_prompts(tower, load_prompts(folder)) for folder in options.prompts[1:]]
    benches = [Workbench(tower, load(folder)) for folder in options.data]
    others = [Workbench(tower, load(folder)) for folder in options.elsewhere]
    names = [bench.dataset.name for bench in benches]
    sources = [Source(name, each.collapsed()) for name, each in zip(names, single, strict=True)]
    for source, bench in zip(sources, benches, strict=True):
        check_tuned_on(source.prompts, bench.dataset, source.name)
    systems = {"frozen": BiEncoder(tower), **dict(zip(names, single, strict=True))}
    for method in ("average", "concatenation"):
        systems[method] = BiEncoder.with_prompts(tower, merge(sources, method))
    dev = {name: of_dev(systems[name], benches) for name in systems}
    tried = []
    for floor in FLOORS:
        keyed = [
            Source(source.name, source.prompts, key_of(tower, bench.dataset, floor=floor))
            for source, bench in zip(sources, benches, strict=True)
        ]
        for temperature in TEMPERATURES:
            mixture = BiEncoder.with_prompts(tower, merge(keyed, "mixture", temperature=temperature))
            tried.append((temperature, floor, mixture, of_dev(mixture, benches)))
            print(f"temperature {temperature:g}, floor {floor:g}: dev {tried[-1][3]}", flush=True)
    temperature, floor, systems["mixture"], dev["mixture"] = max(tried, key=lambda each: fmean(each[3].values()))
    rows = [measure(systems, bench, "test", bench.dataset.name) for bench in benches]
    rows += [measure(systems, bench, "test", None) for bench in others]
    result = {
        "model": tower.name,
        "prompts": {name: each.training_record.get("settings") for name, each in zip(names, single, strict=True)},
        "mixture": {"temperature": temperature, "floor": floor},
        "dev": dev,
        "dev_of_mixtures": [{"temperature": one[0], "floor": one[1], "dev": one[3]} for one in tried],
        "threads": torch.get_num_threads(),
        **made_on(("torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy")),
        "rows": rows,
    }
    write_json(options.json, result)
    print(table(rows))


def of_dev(biencoder: BiEncoder, benches: Sequence[Workbench]) -> dict[str, float]:
    """nDCG@10 on the dev queries of each data set."""
    found = {}
    for bench in benches:
        qrels = bench.training.dev
        queries = {query: bench.training.queries[query] for query in qrels}
        run = bench.index.rank(list(queries), bench.query_vectors(biencoder, queries.values()), 10)
        found[bench.dataset.name] = round(fmean(per_query(qrels, run, [HEADLINE])[HEADLINE].values()), 5)
    return found


def measure(systems: Mapping[str, BiEncoder], bench: Workbench, split: str, own: str | None) -> dict[str, Any]:
    """Every system on a split: nDCG@10, a paired test against the frozen model, the part of the own prompt's gain."""
    queries, qrels = bench.dataset.split(split)
    scores: dict[str, Scores] = {}
    for name, biencoder in systems.items():
        run = bench.index.rank(list(queries), bench.query_vectors(biencoder, queries.values()), 10)
        scores[name] = per_query(qrels, run, [HEADLINE])[HEADLINE]
    means = {name: fmean(values.values()) for name, values in scores.items()}
    gains = {name: mean - means["frozen"] for name, mean in means.items()}
    mixture = systems["mixture"].made_for_each
    assert isinstance(mixture, MixturePrompt)
    frozen = torch.from_numpy(bench.frozen_queries(queries.values()))
    weights = mixture.weights(frozen).mean(dim=0).tolist()
    candidates = ["frozen", *list(systems)[1 : len(weights)]]
    return {
        "dataset": bench.dataset.name,
        "split": split,
        "queries": len(queries),
        "ndcg@10": means,
        "gain": gains,
        "part_of_own_gain": {name: gain / gains[own] for name, gain in gains.items()} if own is not None else None,
        "mean_weight": dict(zip(candidates, weights, strict=True)),
        "tests": {
            name: compare(scores["frozen"], scores[name], HEADLINE).as_dict() for name in systems if name != "frozen"
        },
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """nDCG@10 x 100 of every system, with the gain of each, as Markdown."""
    header = ["system", *(f"{row['dataset']} {row['split']}" for row in rows)]
    cells = []
    for name in rows[0]["ndcg@10"]:
        values = [f"{100 * row['ndcg@10'][name]:.1f} ({100 * row['gain'][name]:+.1f})" for row in rows]
        cells.append([name, *values])
    return markdown(cells, header)


if __name__ == "__main__":
    main()
