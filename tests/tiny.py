"""A data set and a model to tune, made on the fly in a second: a BEIR folder of 40 documents, a random two-layer BERT.

The same arguments give the same bytes. Every query stands in the same frame of words, which the random model cannot
know to ignore: the frame pulls all queries towards the same documents, and that is what a prompt learns to undo.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

NOUNS = (
    "river copper basalt lantern orchid falcon glacier walnut saddle harbor pepper violin meadow cactus anchor tunnel "
    "marble ginger comet barley canyon velvet turbine beacon willow quartz salmon thunder maple cobalt pebble magnet "
    "sparrow furnace island juniper needle lagoon hammer crystal badger prairie syrup engine mosaic cedar pigeon "
    "amber rocket thistle bridge candle dolphin feather granite hollow insect jungle kettle ladder mirror nectar"
)
WORDS = NOUNS.split()
FRAME = ["what", "does", "the", "evidence", "show", "about"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TRAIN, TEST, DEV = range(30), range(30, 40), range(40, 48)  # the numbers of the queries


def write_model(folder: Path, seed: int = 0) -> Path:
    """A BERT of 2 layers, width 32 and 64 positions, random but for positions, which are all alike; mean pooling.

    A text is cut at 40 tokens. Returns a sentence-transformers folder.
    """
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformers.logging.disable_progress_bar()
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *FRAME, *WORDS])}
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = transformers.BertModel(config)
    network.embeddings.position_embeddings.weight.data.zero_()
    network.save_pretrained(folder / "network")
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=40).save_pretrained(folder / "network")
    modules = [Transformer(str(folder / "network")), Pooling(32, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def write_data(folder: Path, *, dev: bool = False, titles: bool = True, seed: int = 0, accents: bool = False) -> Path:
    """40 documents, 30 train and 10 test queries, with `dev` 8 dev queries.

    Query qN is about document dN (of the dev queries: d0, d5, d10 ...). Documents d38 and d39 bear the titles of d0
    and d1, and are relevant to q0 and q1 too; q2 has a judgement of grade 0, d30. With `accents` each word of a
    document has one, which the model strips: nothing changes but that BM25 finds no word of a query.
    """
    random = np.random.default_rng(seed)
    names = [" ".join(random.choice(WORDS, 2, replace=False)) for _ in range(38)]
    names += names[:2]
    texts = [" ".join([*name.split()[::-1], *random.choice(WORDS, 6)]) for name in names]
    about = {**{number: number for number in (*TRAIN, *TEST)}, **{number: (number - 40) * 5 for number in DEV}}

    def query(number: int) -> dict[str, str]:
        own = np.random.default_rng([seed, number]).choice(texts[about[number]].split(), 3, replace=False)
        return {"_id": f"q{number}", "text": " ".join([*FRAME, *own])}

    judged = {
        "train": [*((number, about[number], 1) for number in TRAIN), (0, 38, 1), (1, 39, 2), (2, 30, 0)],
        "test": [(number, about[number], 1) for number in TEST],
    }
    if dev:
        judged["dev"] = [(number, about[number], 1) for number in DEV]

    def written(text: str) -> str:
        return " ".join(f"{word[0]}\u0301{word[1:]}" for word in text.split()) if accents else text

    (folder / "qrels").mkdir(parents=True)
    write_lines(
        folder / "corpus.jsonl",
        [
            json.dumps({"_id": f"d{number}", "title": written(name) if titles else "", "text": written(text)})
            for number, (name, text) in enumerate(zip(names, texts, strict=True))
        ],
    )
    write_lines(folder / "queries.jsonl", [json.dumps(query(number)) for number in (*TRAIN, *TEST, *DEV)])
    for split, rows in judged.items():
        lines = [f"q{number}\td{document}\t{grade}" for number, document, grade in rows]
        write_lines(folder / "qrels" / f"{split}.tsv", ["query-id\tcorpus-id\tscore", *lines])
    return folder


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def cut_in_two(folder: Path) -> Path:
    """Make each document of a data folder two chunks, of its first four words and of the rest: d0#1 and d0#2 of d0."""
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    with (folder / "corpus.jsonl").open("w") as file:
        for row in rows:
            words = f"{row.get('title', '')} {row['text']}".split()
            for number, part in enumerate((words[:4], words[4:]), 1):
                about = {"document": row["_id"], "source": f"{row['_id']}.md", "place": f"Part {number}"}
                chunk = {"_id": f"{row['_id']}#{number}", "text": " ".join(part), "metadata": about}
                file.write(json.dumps(chunk) + "\n")
    return folder
