"""A small WordPiece tokenizer in CLIP's shape: pad is 0, the end is the highest number, so arg-max pooling finds it."""

from __future__ import annotations

import collections
import re
import string
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[SOS]", "[EOS]"
SIZE = 6400
PIECES = 700  # continuations such as "##ing", the commonest of BERT's list


def bert_words(folder: Path) -> tuple[list[str], list[str]]:
    """(words, continuations) of BERT's vocabulary in its own order, which goes from common to rare."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ordered = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    words = [token for token, _ in ordered if re.fullmatch(r"[a-z]{2,}", token)]
    return words, [token for token, _ in ordered if re.fullmatch(r"##[a-z]{2,}", token)]


def build(phrases: list[str], templates: list[str], bert: tuple[list[str], list[str]]) -> PreTrainedTokenizerFast:
    """Letters, the words of templates, the commonest words of the phrases and of English, then pieces of words."""
    words, pieces = bert
    tokens = [PAD, UNKNOWN, START, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    tokens += [*string.digits, *(f"##{digit}" for digit in string.digits), *".,-'!?:;/&()\""]
    tokens += re.findall(r"[a-z]+", " ".join(templates).lower())
    counts = collections.Counter(word for phrase in phrases for word in phrase.split())
    known = set(words)
    tokens += [word for word, count in counts.most_common() if count > 1 or word in known]
    tokens = list(dict.fromkeys(tokens))[: SIZE - PIECES - 800]
    tokens = list(dict.fromkeys(tokens + pieces[:PIECES]))
    tokens = [*list(dict.fromkeys(tokens + words))[: SIZE - 1], END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        model_max_length=77,
        padding_side="right",
    )
