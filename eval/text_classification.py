"""Labels for texts with few examples: prompts beside the frozen model, a linear probe on its vectors, and SetFit.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2    # MIT; unpack it, and the archive that is in it
    python eval/text_classification.py --reviews movieReviewSnippets_GroundTruth.txt --json RESULT
    python eval/text_classification.py --topics DATA/argkp2021 --json RESULT

with RESULT eval/results/text-classification.json. reviews: sentences of film reviews with the mean rating of 20 people,
from -4 to 4 (Hutto and Gilbert 2014, texts of Pang and Lee 2004): "positive" from 1, "negative" to -1, the others left
out. topics: arguments of ArgKP-2021, each with the motion that its key point belongs to, which is the label's name. Of
each label the same texts are the test for all seeds and numbers of examples; examples are drawn from the others.
Defaults everywhere; nothing was chosen on these two sets.

Each run is written as it ends, and one that is there is not made again. `--setfit` adds SetFit (Tunstall et al. 2022),
where it can be imported, on the same examples and model: it trains all weights, which takes much longer.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts import PromptTextClassifier
from retrieval_prompts.data.lines import json_rows
from retrieval_prompts.evaluation.tables import Cell, Mean, markdown
from retrieval_prompts.experiments.labelled_texts import SYSTEMS, compared, scored
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import write_json
from retrieval_prompts.towers.text import DEFAULT_MODEL, TextTower, load_tower

PACKAGES = ("torch", "sentence-transformers", "transformers", "scikit-learn")
TEST = {"reviews": 250, "topics": 15}  # texts of each label
Labelled = list[tuple[str, str]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=Path, help="movieReviewSnippets_GroundTruth.txt")
    parser.add_argument("--topics", type=Path, help="ArgKP-2021 as a BEIR folder")
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--setfit", action="store_true")
    parser.add_argument("--json", type=Path, required=True, help="the result file; it is added to")
    parser.add_argument("--table", action="store_true", help="print what the file holds, and end")
    options = parser.parse_args(arguments)
    if options.table:
        print(table(kept(options.json)))
        return
    tower = load_tower(DEFAULT_MODEL, device="cpu")
    for name, path, read in (("reviews", options.reviews, reviews), ("topics", options.topics, topics)):
        if path is None:
            continue
        rows = read(path)
        for shots in options.shots:
            for seed in options.seeds:
                key = f"{name}.{shots}.{seed}"
                done = kept(options.json).get(key, {})
                if done and ("setfit" in done["systems"] or not options.setfit):
                    continue
                found = done or one(tower, *split(rows, shots, seed, TEST[name]), seed)
                if options.setfit:
                    found["systems"]["setfit"] = setfit(tower, *split(rows, shots, seed, TEST[name]), seed)
                runs = kept(options.json) | {key: found}
                about = {"model": tower.name, "runs": dict(sorted(runs.items())), **made_on(PACKAGES)}
                write_json(options.json, about)
                print(
                    key, {system: round(each["accuracy"], 3) for system, each in found["systems"].items()}, flush=True
                )


def kept(path: Path) -> dict[str, Any]:
    """The runs that are there."""
    return dict(json.loads(path.read_text())["runs"]) if path.exists() else {}


def table(runs: dict[str, Any]) -> str:
    """Accuracy and macro-F1 x 100, mean and deviation over the seeds that are there."""
    rows: list[list[Cell]] = []
    groups = sorted({(name, int(shots)) for name, shots, _ in (key.split(".") for key in runs)})
    for name, shots in groups:
        own = [run for key, run in runs.items() if key.startswith(f"{name}.{shots}.")]
        for system, said in {**SYSTEMS, "setfit": "SetFit"}.items():
            found = [run["systems"][system] for run in own if system in run["systems"]]
            if found:
                figures = [100 * np.array([each[metric] for each in found]) for metric in ("accuracy", "macro_f1")]
                cells = [Mean(float(values.mean()), float(values.std())) for values in figures]
                rows.append([f"{name}, {own[0]['labels']} labels", shots, said, len(found), *cells])
    return markdown(rows, ["texts", "examples a label", "system", "seeds", "accuracy", "macro-F1"])


def reviews(path: Path) -> Labelled:
    """(text, label) of the rated sentences."""
    rows = [line.split("\t") for line in path.read_text(encoding="latin-1").splitlines()]
    rated = [(text, float(rating)) for _, rating, text in rows]
    return [(text, "positive" if rating > 0 else "negative") for text, rating in rated if abs(rating) >= 1]


def topics(folder: Path) -> Labelled:
    """(argument, motion), of the arguments that have one key point."""
    motions = {row["_id"]: row["title"] for _, row in json_rows(folder / "corpus.jsonl")}
    texts = {row["_id"]: row["text"] for _, row in json_rows(folder / "queries.jsonl")}
    points: dict[str, list[str]] = {}
    for file in sorted((folder / "qrels").glob("*.tsv")):
        for line in file.read_text().splitlines()[1:]:
            argument, point, _ = line.split("\t")
            points.setdefault(argument, []).append(point)
    return [(texts[argument], motions[own[0]]) for argument, own in points.items() if len(own) == 1]


def split(rows: Labelled, shots: int, seed: int, test: int) -> tuple[Labelled, Labelled]:
    """(examples, test texts): of each label so many."""
    by_label: dict[str, list[str]] = {}
    for text, label in sorted(set(rows)):
        by_label.setdefault(label, []).append(text)
    train, tested = [], []
    for label, texts in sorted(by_label.items()):
        random.Random(0).shuffle(texts)
        pool = texts[test:]
        random.Random(seed).shuffle(pool)
        train += [(text, label) for text in pool[:shots]]
        tested += [(text, label) for text in texts[:test]]
    return train, tested


def one(tower: TextTower, train: Labelled, test: Labelled, seed: int) -> dict[str, Any]:
    """Scores of the systems, and what was chosen."""
    (texts, labels), (asked, answers) = (list(zip(*part, strict=True)) for part in (train, test))
    start = time.process_time()
    classifier = PromptTextClassifier(tower, random_state=seed).fit(texts, labels)
    took = time.process_time() - start
    classes = classifier.classes_.tolist()
    numbers = [np.array([classes.index(label) for label in part]) for part in (labels, answers)]
    learned = classifier.two_parts_
    systems = compared(learned, asked, numbers[1], (texts, numbers[0]))
    return {
        "labels": len(classes),
        "train": len(texts),
        "test": len(asked),
        "systems": systems,
        "choice": classifier.choice_,
        "held_out": learned.held_out,
        "strength": learned.strength,
        "share": learned.share,
        "cpu_seconds": round(took, 1),
    }


def setfit(tower: TextTower, train: Labelled, test: Labelled, seed: int) -> dict[str, float]:
    """SetFit's own defaults, but for one epoch over at most 20 pairs an example."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    from retrieval_prompts.towers.text import locate

    (texts, labels), (asked, answers) = (list(zip(*part, strict=True)) for part in (train, test))
    classes = sorted(set(labels))
    model = SetFitModel.from_pretrained(locate(tower.name), labels=classes, device="cpu")
    start = time.process_time()
    arguments = TrainingArguments(seed=seed, num_iterations=20, num_epochs=1, report_to="none", save_strategy="no")
    data = Dataset.from_dict({"text": list(texts), "label": [classes.index(label) for label in labels]})
    Trainer(model=model, args=arguments, train_dataset=data).train()
    found = scored(
        np.asarray(model.predict_proba(list(asked), as_numpy=True)), np.array([classes.index(a) for a in answers])
    )
    return {**found, "cpu_seconds": round(time.process_time() - start, 1)}


if __name__ == "__main__":
    main()
