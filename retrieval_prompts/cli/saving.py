"""An index is written, with the words of its documents where there are some."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from retrieval_prompts.data.corpus import Document
    from retrieval_prompts.vectors.index import Index


def save_index(built: Index, corpus: Iterable[Document], out: Path, bm25: bool, overwrite: bool) -> str:
    """Write the index, with the words of its documents if they are wanted and there are any; returns what it holds."""
    from retrieval_prompts.evaluation.bm25 import NoWords
    from retrieval_prompts.evaluation.hybrid import WORDS, HybridIndex

    if bm25:
        try:
            HybridIndex.build(built, corpus).save(out, overwrite)
            size = sum(path.stat().st_size for path in (out / WORDS).iterdir())
            return f"BM25 ({size:,} bytes)"
        except NoWords as error:
            warnings.warn(f"{error}; the index is made without", stacklevel=2)
    built.save(out, overwrite)
    return "no BM25"
