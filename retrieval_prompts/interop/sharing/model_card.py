"""The model card of a prompt folder: metadata for the hub, use, evaluation, training, limits. Knows no model.

The figures are those that `experiments.retrieval.tune` left in the prompt folder; a folder without them gets a card
that says so.
"""

from __future__ import annotations

from typing import Any

from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.tables import markdown, metrics_table
from retrieval_prompts.evaluation.words import metric_name, paired_tests
from retrieval_prompts.prompts.encoders import SIDES
from retrieval_prompts.prompts.folder import PromptFolder

TAGS = ["soft-prompts", "prompt-tuning", "sentence-transformers", "sentence-similarity", "feature-extraction"]

CARD = """---
{metadata}
---

# {name}

{summary}

## Use

```python
{use}
```

## Evaluation

{evaluation}

## Training

{training}

## Limits

- The figures hold for this data; measure on your own queries before you rely on the prompt.
- The prompt belongs to exactly this base model, and is refused by any other.
- Whatever the base model cannot tell apart, or gets wrong for some languages or people, it still does.
"""
USE = """from retrieval_prompts import BiEncoder

biencoder = BiEncoder.from_hub("{repo_id}")
queries = biencoder.encode_query(["a question"])
documents = biencoder.encode_document(["a document", "another one"])
print(queries @ documents.T)"""
USE_BOUND = """from retrieval_prompts import BiEncoder, Index

index = Index.open("an index of the documents, by this frozen model")
biencoder = BiEncoder.from_hub("{repo_id}").bind(index)
scores, ids = index.search(biencoder.query_vectors(["a question"]), 10)"""
USE_EXPORTED = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{repo_id}")
queries = model.encode_query(["a question"])
documents = model.encode_document(["a document", "another one"])
print(model.similarity(queries, documents))"""


def model_card(prompts: PromptFolder, repo_id: str, license: str | None = None, *, exported: bool = False) -> str:
    """The contents of README.md.

    Args:
        prompts: their base model is named as on the hub.
        repo_id: "user/name".
        license: of the prompts; None: the card names none.
        exported: whether the repository is a stock sentence-transformers checkpoint as well.

    Raises:
        UserError: when the record of the training is not one that `experiments.retrieval.tune` makes.
    """
    own = USE if prompts.feedback is None else USE_BOUND
    try:
        return CARD.format(
            metadata=_metadata(prompts, repo_id, license, exported),
            name=repo_id.split("/")[-1],
            summary=_summary(prompts),
            use="\n\n# or, with the package retrieval-prompts\n".join(
                text.format(repo_id=repo_id) for text in ([USE_EXPORTED, own] if exported else [own])
            ),
            evaluation=_evaluation(prompts.training),
            training=_training(prompts.training),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"prompt.json has a missing or damaged part in its training record ({error}); train it again"
        ) from None


def _summary(prompts: PromptFolder) -> str:
    base, dataset = prompts.base["name"], _text(prompts.training.get("dataset"))
    sides = [side for side in SIDES if side in prompts.vectors]
    shapes = " and ".join(str(prompts.vectors[side].shape[1]) for side in sides)
    what = "input vectors" if prompts.kind == "input" else "keys and values in each layer"
    reads = list(prompts.feedback.parts.values()) if prompts.feedback is not None else []
    reads += [prompts.mixture.keys] if prompts.mixture is not None else []
    size = sum(4 * value.numel() for value in [*prompts.vectors.values(), *reads]) / 1000
    sentences = [
        f"A soft prompt for the {' and the '.join(sides)} side of [{base}](https://huggingface.co/{base})"
        + (f", tuned on {_escape(dataset)}." if dataset else "."),
        f"It is {shapes} learned {what}, {size:.1f} kB, which the model reads beside the text; no weight of the model "
        "is changed.",
    ]
    if prompts.feedback is not None:
        count = len(prompts.feedback.parts["gate"])
        sentences.append(
            f"One more for each of {count} documents that a first search finds is made from their vectors."
        )
    if prompts.mixture is not None:
        sentences.append(
            f"It is a mixture of {len(prompts.mixture.keys)} prompts, weighed for each query by its vector without any."
        )
    if sides == ["query"]:
        sentences.append("Documents are encoded by the model as it is, so an index of them stays valid.")
    if prompts.strength == 0:
        sentences.append("No prompt beat the model as it is on the dev queries: at strength 0 this is that model.")
    elif prompts.strength < 1:
        sentences.append(
            f"At strength {prompts.strength:g}, vectors go a part of the way from the model to the prompt."
        )
    return " ".join(sentences)


def _metadata(prompts: PromptFolder, repo_id: str, license: str | None, exported: bool) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_type="unknown",  # the hub's own name of the data set, which we do not know
            dataset_name=_text(prompts.training.get("dataset")) or "unknown",
            dataset_split=split,
            metric_type=metric.replace("@", "_at_"),
            metric_name=metric_name(metric),
            metric_value=round(value, 5),
        )
        for split, systems in _results(prompts.training).items()
        for metric, value in systems.get("tuned", {}).items()
    ]
    return ModelCardData(
        library_name="sentence-transformers" if exported else "retrieval-prompts",
        pipeline_tag="sentence-similarity",
        base_model=prompts.base["name"],
        base_model_relation="finetune" if exported else "adapter",
        license=license,
        tags=TAGS,
        model_name=repo_id.split("/")[-1] if results else None,
        eval_results=results or None,
    ).to_yaml()


def _evaluation(training: dict[str, Any]) -> str:
    """A table and the paired tests for each evaluated split."""
    parts = []
    for split, systems in _results(training).items():
        header, rows = metrics_table(systems)
        parts.append(f"{_escape(_text(training.get('dataset')))}, {_escape(split)} (x 100):")
        parts.append(markdown(rows, [metric_name(name) for name in header]).strip())
        tests = paired_tests((training.get("tests") or {}).get(split, {}), systems)
        parts += [_escape(test.sentence()) for test in tests]
        if tests:
            parts.append("The interval is that of a paired bootstrap, p of a permutation test.")
        if max(systems, key=lambda system: systems[system].get("ndcg@10", 0.0)) == "bm25":
            parts.append("BM25 is the best here.")
    if not parts:
        return "Not evaluated when it was made."
    parts.append("The dev queries chose the prompt; the queries of the table were only reported on.")
    return "\n\n".join(parts)


def _training(training: dict[str, Any]) -> str:
    if training.get("imported"):
        return f"Imported from {_escape(_text(training['imported']))}."
    if merged := training.get("merged"):
        parts = [f"{_text(each['dataset'] or each['name'])} ({each['weight']:.2g})" for each in merged["of"]]
        return f"Not trained itself: the {_escape(_text(merged['method']))} of prompts, {_escape(', '.join(parts))}."
    facts = {
        "training queries": training.get("train_queries"),
        "dev queries": training.get("dev_queries"),
        "dev held out of the training queries": training.get("dev_held_out_of_train"),
        **(training.get("settings") or {}),
    }
    rows = [[name.replace("_", " "), _text(value)] for name, value in facts.items() if value is not None]
    return markdown(rows, ["setting", "value"]).strip() if rows else "Not recorded."


def _results(training: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    return training.get("results") or {}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else " ".join(str(value).split())


def _escape(text: str) -> str:
    """Text of a user's own within a line of Markdown."""
    return "".join(f"\\{letter}" if letter in r"\`*_[]<>|#" else letter for letter in text)
