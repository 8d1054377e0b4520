"""Prompts in sentence-transformers' own trainer, with its losses, its evaluator and its mining of hard negatives.

    model = trainable(BiEncoder.load("all-MiniLM-L6-v2").attach("query", length=8))
    pairs = training_pairs(retrieval_prompts.load("scifact"))
    arguments = SentenceTransformerTrainingArguments("out", learning_rate=1e-2, router_mapping=ROUTER_MAPPING)
    SentenceTransformerTrainer(model, arguments, pairs, loss=MultipleNegativesRankingLoss(model)).train()
    model.save_pretrained("prompts")                                      # a prompt folder

The model's parameters are its prompts, so nothing else is trained or saved: every checkpoint of the trainer is a
prompt folder with the trainer's state beside it, and is resumed from, or taken as the best one, like any other.
Columns get their side from `router_mapping` alone; without it training stops at its first step with a UserError.

`mine_hard_negatives(pairs, model)` needs no prompt arguments: it calls encode_query and encode_document. Its
`cache_folder` tells one state of the prompts from another, though not one exported checkpoint from another.

One process for each device (torchrun, accelerate): torch's DataParallel in one process does not copy the tower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.errors import UserError
from retrieval_prompts.interop.live import ROUTER_MAPPING as ROUTER_MAPPING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from retrieval_prompts.biencoder import BiEncoder


def trainable(biencoder: BiEncoder) -> SentenceTransformer:
    """The live model of `biencoder`, with which it shares its prompts: both are trained at once.

    Raises:
        UserError: when there is no prompt, and at strength 0, where prompts are not used.
    """
    if not biencoder.prompts:
        raise UserError("there is no prompt to train; attach one first (BiEncoder.attach)")
    if biencoder.strength == 0:
        raise UserError("prompts of strength 0 are not used, so they cannot be trained; set biencoder.strength = 1")
    return biencoder.as_sentence_transformer()


def training_pairs(dataset: Dataset, split: str = "train") -> Any:
    """A `datasets.Dataset` of the columns anchor and positive: each query with each of its relevant documents.

    A query with several relevant documents comes several times. Losses with in-batch negatives take one of them for a
    negative of the other where both are in a batch; the trainer's `batch_sampler="no_duplicates"` prevents it.

    Raises:
        UserError: when there is no such split.
    """
    import datasets

    queries, qrels = dataset.split(split)
    pairs = [
        {"anchor": queries[query], "positive": dataset.corpus[dataset.corpus.position(document)].content}
        for query, grades in qrels.items()
        for document, grade in grades.items()
        if grade > 0
    ]
    return datasets.Dataset.from_list(pairs)


def retrieval_evaluator(dataset: Dataset, split: str = "dev", **options: Any) -> Any:
    """An InformationRetrievalEvaluator of a split, for the trainer or on its own; `options` go to it.

    Its measures are ours (`metrics.per_query`) where relevance is a matter of yes or no: it knows no grades. It orders
    equal scores by ascending id, where trec_eval takes the descending one, and keeps a document that bears the id of
    its query.

    Raises:
        UserError: when there is no such split.
    """
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    queries: Any
    queries, qrels = dataset.split(split)
    corpus: Any = {document.id: document.content for document in dataset.corpus}
    relevant = {query: {id for id, grade in grades.items() if grade > 0} for query, grades in qrels.items()}
    return InformationRetrievalEvaluator(queries, corpus, relevant, **options)
