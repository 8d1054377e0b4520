"""What each page of the documentation says is there: small data and tiny models under the names that it uses."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tiny
import tiny_clip
import torch
from image_commands import fitted
from language_models import write_language_model
from toy_stores import fill

from multimodal.data.pictures import load_pictures
from multimodal.towers.clip import load_clip
from multimodal.vectors.image_index import build_index
from retrieval_prompts import BiEncoder, HybridIndex, Index, load, load_corpus
from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.evaluation.trec_runs import write_run
from retrieval_prompts.interop.peft import write_adapter
from retrieval_prompts.prompts.feedback import Start

Prepare = Callable[[Path, Path], None]


def corpus_of(shared: Path) -> Corpus:
    return load_corpus(shared / "data")


def write_shared(folder: Path) -> Path:
    """model, data; A and B, prompts on queries; feedback; index, with words. Made once; pages have copies."""
    model = tiny.write_model(folder)
    tiny.write_data(folder / "data")
    corpus = corpus_of(folder)
    frozen = BiEncoder.load(model, device="cpu")
    index = Index.build(frozen.encode_corpus(corpus), corpus, corpus.ids, encoder=frozen.identity())
    HybridIndex.build(index, corpus).save(folder / "index")
    for seed, name in enumerate(("A", "B")):
        BiEncoder(frozen.tower).attach("query", length=3, seed=seed).save(folder / name)
    start = Start(torch.eye(32) * 0.1, torch.zeros(32))
    reads = BiEncoder(frozen.tower).attach("query", length=2, encoder="feedback", feedback=3, start=start)
    reads.save(folder / "feedback")
    return folder


def _copy(shared: Path, **names: str) -> None:
    """Copies under the names that a page uses: name here -> name there."""
    for here, there in names.items():
        for each in there.split():
            Path(each).parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(shared / here, each)


def _store(shared: Path, path: str) -> np.ndarray:
    """A store of the corpus, and its vectors."""
    corpus, index = corpus_of(shared), Index.open(shared / "index")
    vectors = index.vectors_at(np.arange(len(index)))
    fill("qdrant", path, corpus.ids, vectors, [document.content for document in corpus])
    return vectors


def _sources(shared: Path) -> None:
    """handbook/ of two files, products.parquet, clicks.csv, and triples in docs/."""
    import pyarrow
    from pyarrow import parquet

    corpus, data = list(corpus_of(shared)), load(shared / "data")
    for name, part in (("a", corpus[:4]), ("b", corpus[4:8])):
        Path("handbook").mkdir(exist_ok=True)
        text = "\n\n".join(f"# {document.title}\n\n{document.text}" for document in part)
        Path(f"handbook/{name}.md").write_text(text)
    columns = {name: [getattr(document, name) for document in corpus] for name in ("id", "title", "text")}
    parquet.write_table(pyarrow.table(columns), "products.parquet")
    clicks = [f"{data.queries[query]},{id},3" for query, own in data.qrels["train"].items() for id in own]
    clicks += [f"{data.queries[query]},{id},3" for query, own in data.qrels["test"].items() for id in own]
    Path("clicks.csv").write_text("\n".join(["query,id,clicks", *clicks]) + "\n")


def readme(shared: Path, root: Path) -> None:
    _copy(shared, data="eval/data/scifact DATA", A="A", B="B")
    _sources(shared)
    _pictures()


def _pictures() -> None:
    tiny_clip.write_images(Path("IMAGES"))
    shutil.copy("IMAGES/test/blue/0.png", "photo.jpg")


def command_line(shared: Path, root: Path) -> None:
    """SOURCE, DATA's source; runs, stores, tables, an adapter of PEFT, a language model."""
    import zstandard

    _sources(shared)
    _copy(shared, data="SOURCE DATASETS/scifact DATASETS/fiqa", A="A FOLDER/A", B="B FOLDER/B")
    corpus, data = corpus_of(shared), load(shared / "data")
    np.save("vectors.npy", _store(shared, "db"))
    for name, seed in (("A", 0), ("B", 1)):
        scores = np.random.default_rng(seed).random((len(data.queries), len(corpus)))
        rows = zip(data.queries, scores.tolist(), strict=True)
        write_run(f"{name}.trec", {id: dict(zip(corpus.ids, row, strict=True)) for id, row in rows}, name)
    Path("docs").mkdir()
    lines = [json.dumps({"id": each.id, "title": each.title, "text": each.text}) for each in corpus]
    Path("docs/all.jsonl.zst").write_bytes(zstandard.compress("\n".join(lines).encode()))
    texts = [document.text for document in corpus]
    triples = [{"anchor": text.split()[0], "positive": text, "negatives": [texts[0]]} for text in texts[1:]]
    Path("triples.jsonl").write_text("\n".join(map(json.dumps, triples)) + "\n")
    _labelled("train.csv")
    write_language_model(Path("MODEL"), "causal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT places them differently
        write_adapter(BiEncoder.load(shared / "model", shared / "A", device="cpu"), "ADAPTER")


def _labelled(*names: str) -> None:
    """Tables of texts with two labels; those of new.csv have none."""
    for name in names:
        rows = [(f"copper river {word}", "neg") for word in tiny.WORDS[:8]]
        rows += [(f"violin orchid {word}", "pos") for word in tiny.WORDS[8:16]]
        bare = name.startswith("new")
        lines = ["text" if bare else "text,label", *(text if bare else f"{text},{label}" for text, label in rows)]
        Path(name).write_text("\n".join(lines) + "\n")


def prompts(shared: Path, root: Path) -> None:
    _copy(shared, index="INDEX", feedback="feedback-prompts", A="claims", B="code")


def evaluation(shared: Path, root: Path) -> None:
    _copy(shared, data="DATASETS/scifact DATASETS/nfcorpus", A="PROMPTS/scifact", B="PROMPTS/nfcorpus", model="MODEL")


def images(shared: Path, root: Path) -> None:
    """IMAGES with labels, PICTURES without, captions.csv, and the CLIP that teaches."""
    Path("eval").symlink_to(root / "eval")
    _pictures()
    shutil.copytree("IMAGES/test", "PICTURES")
    tiny_clip.write_clip(Path("CLIP"))
    tiny_clip.write_captions(Path())


def elsewhere(shared: Path, root: Path) -> None:
    _copy(shared, data="DATA")


def serving(shared: Path, root: Path) -> None:
    """An index of texts; and PICTURES, one of pictures."""
    _copy(shared, index="INDEX", A="PROMPTS/legal", B="PROMPTS/medical")
    folder, clip = tiny_clip.write_images(Path("IMAGES")), tiny_clip.write_clip(Path("CLIP"))
    build_index(load_clip(str(clip), device="cpu"), load_pictures(folder), root=folder).save("PICTURES")
    for name in ("birds", "food"):
        fitted(Path("PROMPTS", name), clip, folder)


def scale(shared: Path, root: Path) -> None:
    _copy(shared, data="DATA")
    _store(shared, "PATH")


def classification(shared: Path, root: Path) -> None:
    _labelled("train.csv", "test.csv", "new.csv")


def generation(shared: Path, root: Path) -> None:
    _copy(shared, data="DATA data")
    write_language_model(Path("language-model"), "causal")
    write_language_model(Path("MODEL"), "causal")


def pairs(shared: Path, root: Path) -> None:
    _sources(shared)
    Path("clicks.csv").rename("duplicates.csv")
    texts = [f"{document.id},{document.title} {document.text}" for document in corpus_of(shared)]
    Path("questions.csv").write_text("\n".join(["id,text", *texts]) + "\n")


def nothing(shared: Path, root: Path) -> None:
    pass


PAGES: dict[str, Prepare] = {
    "README.md": readme,
    "docs/command-line.md": command_line,
    "docs/elsewhere.md": elsewhere,
    "docs/evaluation.md": evaluation,
    "docs/examples.md": nothing,
    "docs/images.md": images,
    "docs/index.md": readme,
    "docs/prompts.md": prompts,
    "docs/scale.md": scale,
    "docs/serving.md": serving,
    "docs/tasks/classification.md": classification,
    "docs/tasks/generation.md": generation,
    "docs/tasks/pairs.md": pairs,
    "docs/training-on-many.md": elsewhere,
}
