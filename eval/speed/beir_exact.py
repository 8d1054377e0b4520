"""beir's own exact search as its examples do it, for `eval.speed.benchmark` to time: nothing of this project is in it.

python eval/speed/beir_exact.py FOLDER MODEL RESULT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from beir.datasets.data_loader import GenericDataLoader
from beir.retrieval.evaluation import EvaluateRetrieval
from beir.retrieval.models import SentenceBERT
from beir.retrieval.search.dense import DenseRetrievalExactSearch


def main() -> None:
    folder, model, out = sys.argv[1:]
    corpus, queries, qrels = GenericDataLoader(data_folder=folder).load(split="test")
    retriever = EvaluateRetrieval(DenseRetrievalExactSearch(SentenceBERT(model)), score_function="cos_sim")
    results = retriever.retrieve(corpus, queries)
    ndcg, mean_average_precision, recall, precision = retriever.evaluate(qrels, results, retriever.k_values)
    Path(out).write_text(json.dumps({**ndcg, **mean_average_precision, **recall, **precision}))


if __name__ == "__main__":
    main()
