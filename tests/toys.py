"""Toy towers: tiny random models of seven architectures, each saved as a sentence-transformers folder with a tokenizer
of its own family, made here from a few sentences. Seeded: a folder made twice holds the same weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ARCHITECTURES = ("bert", "mpnet", "roberta", "xlm-roberta", "distilbert", "modernbert", "qwen3")
KINDS = ("input", "prefix")
WIDTH, LAYERS, HEADS = 32, 2, 4
MAXIMUM, POSITIONS = 32, 64  # tokens of a text; positions of the model

SENTENCES = (
    "the quick brown fox jumps over the lazy dog while seven wizards box",
    "a soft prompt steers a frozen retriever to the documents that answer a question",
    "search the corpus for evidence that supports or refutes this claim",
    "does the dense index find a relevant passage for every query, or only for some of them?",
    "query: which passage: is closest; find it (quickly), then print x[0] + y ** 2",
)
TEXTS = (
    "fox",
    "A frozen retriever finds the documents that answer a question.",
    "the lazy dog, and the quick brown fox: which of them jumps over seven wizards, and which one prints x[0]?",
    "search",
    "Überall naïve Füchse – the claim [Q0] [D0] is not in the corpus 🙂",
)
LONG = "search the corpus for evidence that supports or refutes this claim, " * 12  # far beyond MAXIMUM tokens


def build(
    folder: Path,
    architecture: str,
    *,
    pooling: str | None = None,
    include_prompt: bool = True,
    dense: int | None = None,
    normalize: bool = True,
    similarity: str = "cosine",
    prompts: dict[str, str] | None = None,
    maximum: int = MAXIMUM,
    padding_side: str | None = None,
    truncate_dim: int | None = None,
    half: bool = False,
    seed: int = 0,
) -> Path:
    """Save a toy sentence-transformers model; returns `folder`.

    Args:
        dense: adds a layer of so many outputs after pooling.
        half: weights in bfloat16.
    """
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Module, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformers.logging.disable_progress_bar()
    tokenizer = TOKENIZERS[architecture](maximum)
    if padding_side is not None:
        tokenizer.padding_side = padding_side
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(architecture, tokenizer)
        # The transformer's own folder, from which sentence-transformers reads it once
        network.save_pretrained(folder / "network")
        tokenizer.save_pretrained(folder / "network")
        modules: list[Module] = [Transformer(str(folder / "network"))]
        pooling = pooling or ("lasttoken" if architecture == "qwen3" else "mean")
        modules.append(Pooling(WIDTH, pooling, include_prompt=include_prompt))
        if dense is not None:
            modules.append(Dense(WIDTH, dense))
        if normalize:
            modules.append(Normalize())
    model = SentenceTransformer(
        modules=modules,  # type: ignore[arg-type]
        prompts=prompts,
        similarity_fn_name=similarity,  # type: ignore[arg-type]
        truncate_dim=truncate_dim,
        device="cpu",
    )
    (model.bfloat16() if half else model).save(str(folder), create_model_card=False)
    return folder


def _network(architecture: str, tokenizer: Any) -> Any:
    import transformers as t

    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.2,  # far from linear, as trained weights are
        "pad_token_id": tokenizer.pad_token_id,
    }
    offset = {**common, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1}  # positions count from 2
    if architecture == "bert":
        return t.BertModel(t.BertConfig(**common))
    if architecture == "mpnet":
        return t.MPNetModel(t.MPNetConfig(**offset))
    if architecture == "roberta":
        return t.RobertaModel(t.RobertaConfig(**offset))
    if architecture == "xlm-roberta":
        return t.XLMRobertaModel(t.XLMRobertaConfig(**offset))
    if architecture == "distilbert":
        sizes: dict[str, Any] = {"dim": WIDTH, "hidden_dim": 2 * WIDTH, "n_layers": LAYERS, "n_heads": HEADS}
        return t.DistilBertModel(
            t.DistilBertConfig(
                vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, initializer_range=0.2, **sizes
            )
        )
    if architecture == "modernbert":
        start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        special = {"cls_token_id": start, "bos_token_id": start, "sep_token_id": end, "eos_token_id": end}
        # The first layer sees everything, the second one four tokens to each side
        window = {"local_attention": 8, "global_attn_every_n_layers": 2}
        return t.ModernBertModel(t.ModernBertConfig(**{**common, **special, **window}))
    assert architecture == "qwen3"
    return t.Qwen3Model(t.Qwen3Config(**common, num_key_value_heads=HEADS // 2, head_dim=8))


def _words() -> list[str]:
    from tokenizers.pre_tokenizers import BertPreTokenizer

    return sorted({word for text in SENTENCES for word, _ in BertPreTokenizer().pre_tokenize_str(text)})


def _wordpiece(maximum: int, family: str, special: list[str]) -> Any:
    import transformers

    words = _words()
    letters = sorted({letter for word in words for letter in word if letter.isalnum()})
    pieces = dict.fromkeys([*special, *words, *letters, *("##" + letter for letter in letters)])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return getattr(transformers, family)(vocab=vocabulary, model_max_length=maximum)


def _bert(maximum: int) -> Any:
    return _wordpiece(maximum, "BertTokenizer", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])


def _distilbert(maximum: int) -> Any:
    return _wordpiece(maximum, "DistilBertTokenizer", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])


def _mpnet(maximum: int) -> Any:
    return _wordpiece(maximum, "MPNetTokenizer", ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])


def _byte_level(special: list[str]) -> tuple[Any, dict[str, int], Any]:
    """A byte-level BPE: (tokenizer, vocabulary, merges)."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return tokenizer, model["vocab"], [tuple(pair) for pair in model["merges"]]


def _roberta(maximum: int) -> Any:
    import transformers

    _, vocabulary, merges = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=maximum)


def _modernbert(maximum: int) -> Any:
    import transformers
    from tokenizers import processors

    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    tokenizer, vocabulary, _ = _byte_level([*names.values(), "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=maximum,
        model_input_names=["input_ids", "attention_mask"],
        mask_token="[MASK]",
        **names,
    )


def _qwen3(maximum: int) -> Any:
    import transformers
    from tokenizers import processors

    end = "<|endoftext|>"
    _, vocabulary, merges = _byte_level([end])
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, model_max_length=maximum, padding_side="left"
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, vocabulary[end])]
    )
    return tokenizer


def _xlm_roberta(maximum: int) -> Any:
    import transformers

    words = _words()
    letters = sorted({letter for word in words for letter in word})
    # Unigram takes the likeliest pieces: whole words before letters
    special = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces = [("▁" + word, -4.0) for word in words] + [(piece, -8.0) for piece in ["▁", *letters]]
    return transformers.XLMRobertaTokenizer(vocab=[*special, *pieces, ("<mask>", 0.0)], model_max_length=maximum)


TOKENIZERS = {
    "bert": _bert,
    "mpnet": _mpnet,
    "roberta": _roberta,
    "xlm-roberta": _xlm_roberta,
    "distilbert": _distilbert,
    "modernbert": _modernbert,
    "qwen3": _qwen3,
}
