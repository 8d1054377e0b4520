"""Do tuned query prompts keep what they gain on a compressed index that the frozen encoder built?

    python eval/compare_indexes.py DATA/sentences --prompts PROMPTS/scifact-input PROMPTS/scifact-prefix \\
        --only scifact/ --json eval/results/indexes-sentences.json --picture eval/results/indexes-sentences.png

One index of frozen documents for each type; frozen and tuned query vectors search all of them at several settings. The
result has the rows of `index_types.compare_factories` and, for each of them and each prompt, three paired tests over
queries: "recall" (tuned - frozen, each against its own exact ranking), "gain" (nDCG@10, tuned - frozen, on this index)
and "gain_lost" (the gain here - the gain with exact search), not corrected for their number. `--only` keeps the queries
whose id starts so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from retrieval_prompts import BiEncoder, UserError, load
from retrieval_prompts.evaluation.metrics import HEADLINE
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.experiments.indexes.index_tradeoffs import check_picture, label, picture, table
from retrieval_prompts.experiments.indexes.index_types import Measured, Measurement, compare_factories, parse_factories
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.experiments.records.stopwatch import Stopwatch
from retrieval_prompts.files import check_output, write_json

FACTORIES = (
    "Flat; SQfp16; SQ8; SQ4; HNSW32; IVF1024,Flat; IVF1024,SQ8; IVF1024,PQ96x4fs,RFlat; IVF1024,PQ96x4fs,Refine(SQ8);"
    "OPQ48_192,IVF1024,PQ48; RaBitQ; IVF1024,RaBitQ; RaBitQ,RFlat; PCA128,IVF1024,SQ8"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder, of sentences.py for instance")
    parser.add_argument("--prompts", type=Path, nargs="+", default=[], help="prompt folders with a query side")
    parser.add_argument("--model", default=None)
    parser.add_argument("--split", default="test")
    parser.add_argument("--only", default="", help="only queries whose id starts so")
    parser.add_argument("--factories", default=FACTORIES, help="FAISS index types, with ';' between")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each search")
    parser.add_argument("--json", type=Path, required=True, help="the result file")
    parser.add_argument("--picture", type=Path, help=".svg, .png or .pdf")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    check_output(options.json, overwrite=options.overwrite)
    if options.picture:
        check_picture(options.picture, overwrite=options.overwrite)
    watch = Stopwatch()
    dataset = load(options.data)
    queries, qrels = dataset.split(options.split)
    queries = {id: text for id, text in queries.items() if id.startswith(options.only)}
    qrels = {id: qrels[id] for id in queries}
    frozen = BiEncoder.load(options.model)
    encoders = {"frozen": frozen}
    for folder in options.prompts:
        encoders[folder.name] = BiEncoder.load(options.model, folder)
        if encoders[folder.name].identity() != frozen.identity():
            raise UserError(f"{folder} has a document prompt; the index is one of frozen documents")
    with watch("encode"):
        documents = frozen.encode_corpus(dataset.corpus)
        texts = list(queries.values())
        vectors = {name: each.query_vectors(texts) for name, each in encoders.items()}
    with watch("compare"):
        rows = compare_factories(
            documents.array(),
            dataset.corpus.ids,
            vectors,
            parse_factories([options.factories], frozen.tower.dimension),
            query_ids=list(queries),
            qrels=qrels,
            measured=Measured(repeats=options.repeats),
            progress=lambda what: print(what, flush=True),
        )
    with watch("test"):
        tests = paired(rows, list(queries))
    result = {
        "dataset": dataset.name,
        "split": options.split,
        "only": options.only,
        "documents": len(dataset.corpus),
        "query_count": len(queries),
        "model": frozen.tower.name,
        "prompts": {name: each.training_record for name, each in encoders.items() if each.prompts},
        **made_on(("faiss-cpu", "numpy", "torch", "transformers", "sentence-transformers")),
        "seconds": watch.seconds,
        "rows": [row.to_json() for row in rows],
        "tests": tests,
    }
    write_json(options.json, result)
    Console(width=80 + 20 * len(encoders)).print(table(rows))
    widest = {(test["queries"], test["factory"]): test for test in tests}  # the last setting searches most
    for test in widest.values():
        print(_line(test))
    if options.picture:
        title = f"{dataset.name}, {len(dataset.corpus):,} documents, {len(queries)} queries"
        picture(rows, options.picture, title=title, overwrite=options.overwrite)


def paired(rows: list[Measurement], ids: list[str]) -> list[dict[str, Any]]:
    """Tuned against frozen for each factory, setting and prompt; see the module's docstring."""
    by_name: dict[tuple[str, str], dict[str, Measurement]] = {}
    for row in rows:
        by_name.setdefault((row.factory, label(row.setting)), {})[row.queries] = row
    tests = []
    for kinds in by_name.values():
        base = kinds["frozen"].each
        for name, row in kinds.items():
            if name == "frozen":
                continue
            tuned = row.each
            assert base is not None and tuned is not None, "each query is kept"
            assert base.ndcg and base.exact_ndcg and tuned.ndcg and tuned.exact_ndcg, "the queries are judged"
            before, after = (dict(zip(ids, each.recall, strict=True)) for each in (base, tuned))
            exact = {id: tuned.exact_ndcg[id] - base.exact_ndcg[id] for id in ids}
            here = {id: tuned.ndcg[id] - base.ndcg[id] for id in ids}
            tests.append(
                {
                    "factory": row.factory,
                    "setting": row.setting,
                    "queries": name,
                    "recall": compare(before, after, "recall").as_dict(),
                    "gain": compare(base.ndcg, tuned.ndcg, HEADLINE).as_dict(),
                    "gain_lost": compare(exact, here, HEADLINE).as_dict(),
                }
            )
    return tests


def _line(test: dict[str, Any]) -> str:
    def show(name: str) -> str:
        found = test[name]
        low, high = found["ci95"]
        return f"{100 * found['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"

    where = f"{test['factory']} {label(test['setting'])}".strip()
    return (
        f"{test['queries']}, {where}: recall tuned - frozen {show('recall')}, "
        f"nDCG gain {show('gain')}, gain here - gain exact {show('gain_lost')}"
    )


if __name__ == "__main__":
    main()
