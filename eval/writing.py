"""A soft prompt for a language model that writes queries: the loss of claims nobody trained on, with and without it.

    python eval/writing.py eval/data/scifact --json eval/results/writing-scifact.json

The language model is a test bed, and no more: a GPT-2 of two layers and 128 numbers a token, trained here from random
weights on the abstracts of the corpus for `--bed-steps` steps. It has read no claim and no "Query:". The prompt is
trained on 50 training claims with their abstracts; the loss is that of a token of the test claims behind theirs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval_prompts import Dataset, load
from retrieval_prompts.experiments.pairs.generated import Writer, examples, judged_pairs, write_queries_like
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.towers.language import LanguageModel
from retrieval_prompts.training.losses import next_token
from retrieval_prompts.training.tasks.settings import WritingSettings

PACKAGES = ("torch", "transformers", "tokenizers")
CONTEXT, BATCH = 256, 8  # tokens of a stretch of text, stretches a step


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder with the splits train and test")
    parser.add_argument("--generator", help="a language model  [default: the test bed]")
    parser.add_argument("--bed-steps", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--test", type=int, default=100, help="test claims")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max-steps", type=int, default=100)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    check_output(options.json, overwrite=False)
    dataset = load(options.data)
    with tempfile.TemporaryDirectory() as temporary:
        name = options.generator or str(test_bed(dataset, Path(temporary) / "bed", options.bed_steps))
        model = LanguageModel(name, torch.device("cpu"))
    before = model.fingerprint
    learned = judged_pairs(dataset, options.pairs)[: options.pairs]
    test = dataset.split("test")
    asked = [(document_of(dataset, judged), test[0][query]) for query, judged in test[1].items()][: options.test]
    found: dict[str, Any] = {"model": options.generator or f"test bed, {options.bed_steps} steps", "runs": {}}
    losses = {
        "frozen": loss(model, Writer(model, []), asked),
        "examples": loss(model, Writer(model, examples(dataset)), asked),
    }
    print(losses, flush=True)
    for seed in options.seeds:
        start = time.process_time()
        task, training = write_queries_like(model, learned, WritingSettings.of(seed=seed, max_steps=options.max_steps))
        for _ in training:
            pass
        prompt = task.found()
        value = loss(model, Writer(model, [], prompt), asked)
        seconds = round(time.process_time() - start, 1)
        found["runs"][str(seed)] = {"test_loss": value, **prompt.training["dev_loss"], "cpu_seconds": seconds}
        print(seed, found["runs"][str(seed)], flush=True)
        del model.__dict__["fingerprint"]
        found |= {"dataset": dataset.name, "pairs": len(learned), "test": len(asked), "test_loss": losses}
        write_json(options.json, found | {"weights_unchanged": model.fingerprint == before, **made_on(PACKAGES)})


def document_of(dataset: Dataset, judged: dict[str, int]) -> str:
    """The first relevant document."""
    id = next(document for document, grade in judged.items() if grade > 0)
    return dataset.corpus[dataset.corpus.position(id)].content


def loss(model: LanguageModel, writer: Writer, pairs: Sequence[tuple[str, str]]) -> float:
    """The mean over the tokens of queries, as the writer asks for them."""
    total, count = 0.0, 0
    room = 0 if writer.vectors is None else len(writer.vectors)
    for document, query in pairs:
        with torch.no_grad():
            logits, labels = model.logits([model.pair(writer.prompt(document), f" {query}", room)], writer.vectors)
        tokens = int((labels >= 0).sum())
        total, count = total + float(next_token(logits, labels)) * tokens, count + tokens
    return total / count


def test_bed(dataset: Dataset, folder: Path, steps: int) -> Path:
    """A small causal language model that has read the documents; returns its folder."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    texts = [document.content for document in dataset.corpus]
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator(texts, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="<end>")
    torch.manual_seed(0)
    shape: dict[str, Any] = {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 512}
    end = tokenizer.eos_token_id
    config = transformers.GPT2Config(vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end, **shape)
    network = transformers.GPT2LMHeadModel(config)
    stream = np.concatenate([[*row, end] for row in tokenizer(texts)["input_ids"]])
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    draw = np.random.default_rng(0)
    for step in range(steps):
        starts = draw.integers(len(stream) - CONTEXT, size=BATCH)
        batch = torch.from_numpy(np.stack([stream[start : start + CONTEXT] for start in starts]))
        value = network(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"bed, step {step}: loss {value.item():.2f}", flush=True)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
