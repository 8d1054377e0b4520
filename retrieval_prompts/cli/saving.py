"""An index is written, with the words of its documents where there are some."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from retrieval_prompts.data.corpus import Corpus, Document
    from retrieval_prompts.data.id_list import IdList
    from retrieval_prompts.vectors.faiss_index import Vectors
    from retrieval_prompts.vectors.index import Index


def save_index(built: Index, corpus: Iterable[Document], out: Path, bm25: bool, overwrite: bool) -> str:
    """Write an index, with the words of its documents if they are wanted and there are any; returns what it holds."""
    built.save(out, overwrite, beside=_words(corpus, built.ids) if bm25 else None)
    return _held(out)


def write_index(
    vectors: Vectors,
    corpus: Corpus,
    out: Path,
    bm25: bool,
    overwrite: bool,
    encoder: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[Index, str]:
    """Build an index in its folder, as `save_index` does; `options`: of `Index.write`."""
    from retrieval_prompts.vectors.index import Index

    beside = _words(corpus, corpus.ids) if bm25 else None
    written = Index.write(out, vectors, corpus, encoder=encoder, overwrite=overwrite, beside=beside, **options)
    return written, _held(out)


def _words(corpus: Iterable[Document], ids: IdList) -> dict[str, Callable[[Path], None]]:
    from retrieval_prompts.evaluation.hybrid import WORDS

    return {WORDS: partial(_write_words, corpus, ids)}


def _write_words(corpus: Iterable[Document], ids: IdList, folder: Path) -> None:
    from retrieval_prompts.evaluation.bm25 import BM25Index, NoWords

    try:
        words = BM25Index.build((document.content for document in corpus), ids)
    except NoWords as error:
        warnings.warn(f"{error}; the index is made without", stacklevel=2)
    else:
        words.save(folder)


def _held(out: Path) -> str:
    from retrieval_prompts.evaluation.hybrid import WORDS

    if not (out / WORDS).is_dir():
        return "no BM25"
    return f"BM25 ({sum(path.stat().st_size for path in (out / WORDS).iterdir()):,} bytes)"
