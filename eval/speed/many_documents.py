"""What grows with the number of documents: index, open, search and tune, each in a process of its own.

    python eval/speed/many_documents.py --documents 200000 1000000 --json eval/results/many-documents.json

Made-up short documents (eight words). Encoding is not what is measured: the cache holds random vectors of 32 numbers
for them beforehand, and a random model of two layers encodes the queries. Of each process: the peak that the system
reports (ru_maxrss), which counts pages of mapped files that it may take back at any time; the peak of what it may not
take back (RssAnon, read 50 times a second); seconds, imports included, and those in which it had a processor. Bytes a
document are the slope between the fewest and the most documents.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[2] / "tests"
sys.path.insert(0, str(TESTS))

QUERIES = 64
BLOCK = 10_000  # documents that are made at once
STEPS = ("import", "index", "open", "search", "tune")
COMMAND = "from retrieval_prompts.cli.start import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="the result file")
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--factory", default="Flat", help="FAISS index string")
    parser.add_argument("--memory", type=float, default=2.0, help="GB of vectors in training (tune --memory)")
    parser.add_argument("--no-bm25", action="store_true")
    parser.add_argument("--folder", type=Path, help="where data and indexes are made  [default: a temporary one]")
    parser.add_argument("--notes", default="", help="on the machine, kept in the result")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--in-process", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        own, *given = options.in_process
        print(json.dumps(IN_PROCESS[own](*given)))
        return
    from retrieval_prompts.errors import UserError
    from retrieval_prompts.files import check_output

    try:
        if options.json is not None:
            check_output(options.json, overwrite=options.overwrite)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measured(options, Path(folder))
    except UserError as error:
        sys.exit(f"error: {error}")


def measured(options: argparse.Namespace, folder: Path) -> None:
    """Measure every number of documents, and write what was found after each."""
    sizes: dict[int, dict[str, Any]] = {}
    watched([sys.executable, __file__, "--in-process", "model", str(folder)])
    for count in sorted(options.documents):
        sizes[count] = one_size(options, folder, count)
        result = {"factory": options.factory, "bm25": not options.no_bm25, "memory": options.memory, "sizes": sizes}
        write(options, result | {"bytes_a_document": slopes(sizes)})


def slopes(sizes: dict[int, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Bytes a document of each step; none of a single size."""
    first, last = min(sizes), max(sizes)
    if first == last:
        return {}
    return {
        step: {
            kind: round((sizes[last][step][kind] - sizes[first][step][kind]) / (last - first), 1)
            for kind in ("peak_bytes", "anonymous_bytes")
        }
        for step in STEPS
    }


def write(options: argparse.Namespace, result: dict[str, Any]) -> None:
    if options.json is None:
        print(json.dumps(result, indent=1))
        return
    from retrieval_prompts.files import write_json

    # In a process of its own: what this one has ever held would count as that of its next child (see getrusage)
    told = subprocess.run([sys.executable, __file__, "--in-process", "about"], stdout=subprocess.PIPE, check=True)
    made_on = json.loads(told.stdout)
    made_on["machine"] |= {"cores": os.cpu_count(), "notes": options.notes}
    write_json(options.json, result | made_on)


def about() -> dict[str, Any]:
    from retrieval_prompts.experiments.records.result_file import made_on

    return made_on(("torch", "faiss-cpu", "bm25s", "numpy"))


def one_size(options: argparse.Namespace, folder: Path, count: int) -> dict[str, Any]:
    data, index = folder / f"data-{count}", folder / f"index-{count}"
    watched([sys.executable, __file__, "--in-process", "data", str(data), str(count)])
    model, cache = str(folder / "model"), str(folder / f"cache-{count}")
    watched([sys.executable, __file__, "--in-process", "cache", str(data), model, cache])
    run = [sys.executable, "-c", COMMAND]
    own = [sys.executable, __file__, "--in-process"]
    shared = ["--model", model, "--cache", cache]
    words = ["--no-bm25"] if options.no_bm25 else []
    commands = {
        "import": [*own, "import"],
        "index": [*run, "index", str(data), "--out", str(index), *shared, *words, "--factory", options.factory],
        "open": [*own, "open", str(index)],
        "search": [*run, "search", str(index), "river copper basalt", "--json", "-"],
        "tune": [*own, "tune", str(data), model, cache, str(options.memory)],
    }
    found: dict[str, Any] = {"corpus_bytes": (data / "corpus.jsonl").stat().st_size}
    for step in STEPS:
        found[step] = watched(commands[step])
        print(f"{count:>10,} {step:7}", found[step], flush=True)
    found["index_files"] = {
        path.relative_to(index).as_posix(): path.stat().st_size for path in sorted(index.rglob("*")) if path.is_file()
    }
    return found


def watched(command: list[str]) -> dict[str, Any]:
    """Peak and time of a command, with what it printed as JSON. Ends where it fails."""
    start, anonymous, usage = time.perf_counter(), 0, None
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        while usage is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                anonymous = max(
                    [anonymous, *(int(line.split()[1]) for line in status.splitlines() if "RssAnon" in line)]
                )
            except OSError:
                pass
            pid, code, found = os.wait4(process.pid, os.WNOHANG)
            if pid:
                usage, process.returncode = found, os.waitstatus_to_exitcode(code)
            else:
                time.sleep(0.02)
        seconds = time.perf_counter() - start
        output.seek(0)
        errors.seek(0)
        said, wrong = output.read(), errors.read().decode()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}\n{wrong}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    known = json.loads(said) if command[1] == __file__ else None
    times = {"seconds": round(seconds, 1), "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1)}
    return {"peak_bytes": peak, "anonymous_bytes": 1024 * anonymous, **times, **(known or {})}


def make_data(folder: str, count: str) -> None:
    """A BEIR folder: documents of five words that the model knows and three others, and queries about some."""
    import numpy as np
    from tiny import WORDS

    random, total = np.random.default_rng(0), int(count)
    place = Path(folder)
    (place / "qrels").mkdir(parents=True)
    queries = {}
    with (place / "corpus.jsonl").open("w") as file:
        for start in range(0, total, BLOCK):
            size = min(BLOCK, total - start)
            known = random.integers(len(WORDS), size=(size, 5))
            other = (30_000 ** random.random((size, 3))).astype(int)
            for number in range(size):
                text = " ".join([*(WORDS[at] for at in known[number]), *(f"word{at}" for at in other[number])])
                file.write(f'{{"_id": "document-{start + number}", "title": "", "text": "{text}"}}\n')
                if start == 0 and number < QUERIES:
                    queries[f"q{number}"] = " ".join(text.split()[:3])
    lines = [json.dumps({"_id": id, "text": text}) for id, text in queries.items()]
    (place / "queries.jsonl").write_text("".join(f"{line}\n" for line in lines))
    judged = "".join(f"q{number}\tdocument-{number}\t1\n" for number in range(len(queries)))
    (place / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")


def make_model(folder: str) -> None:
    from tiny import write_model

    write_model(Path(folder))


def fill_cache(data: str, model: str, cache: str) -> dict[str, Any]:
    """Random vectors of length 1 where `index` and training look for those of the documents."""
    import numpy as np

    from retrieval_prompts import BiEncoder
    from retrieval_prompts.data.beir_folder import load_corpus
    from retrieval_prompts.vectors import blocks as stored

    blocks: Any = stored
    random = np.random.default_rng(0)

    def made(tower: Any, texts: list[str], *_: Any, **__: Any) -> Any:
        vectors = random.standard_normal((len(texts), tower.dimension), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    blocks.encode_texts = made
    return {"vectors": BiEncoder.load(model).encode_corpus(load_corpus(data), Path(cache)).encoded}


def imported() -> dict[str, Any]:
    from retrieval_prompts import BiEncoder
    from retrieval_prompts.training import retrieval

    return {"imported": len({BiEncoder.__name__, retrieval.__name__})}


def opened(index: str) -> dict[str, Any]:
    from retrieval_prompts.evaluation.hybrid import HybridIndex
    from retrieval_prompts.vectors.index import Index

    start = time.perf_counter()
    found = Index.open(index)
    dense = time.perf_counter() - start
    found.document(found.ids[len(found) // 2])
    first = time.perf_counter() - start - dense
    start = time.perf_counter()
    HybridIndex.of(found, index)
    return {
        "seconds_to_open": round(dense, 3),
        "seconds_to_a_document": round(first, 3),
        "seconds_to_open_words": round(time.perf_counter() - start, 3),
    }


def tuned(data: str, model: str, cache: str, memory: str) -> dict[str, Any]:
    from retrieval_prompts import BiEncoder, TuneSettings, load
    from retrieval_prompts.training import retrieval
    from retrieval_prompts.training.training_data import TrainingData

    biencoder, dataset = BiEncoder.load(model), load(data)
    train = dataset.split("train")[1]
    settings = TuneSettings(epochs=1, memory=float(memory))
    documents = BiEncoder(biencoder.tower).encode_corpus(dataset.corpus, Path(cache))
    assert documents.encoded == 0
    biencoder.attach(settings)
    given = TrainingData(dataset.corpus, dataset.queries, train, {})
    start = time.perf_counter()
    record = next(retrieval.train(biencoder, given, settings, documents=documents))
    return {"loss": record.loss, "seconds_to_first_step": round(time.perf_counter() - start, 2)}


IN_PROCESS: dict[str, Any] = {
    "data": make_data,
    "about": about,
    "model": make_model,
    "cache": fill_cache,
    "import": imported,
    "open": opened,
    "tune": tuned,
}

if __name__ == "__main__":
    main()
