"""Do two checkouts of this project give the same results? The same commands in both, and what they write compared.

    python eval/same_results.py run CHECKOUT OUT        run the commands of CHECKOUT into the folder OUT
    python eval/same_results.py compare OUT_A OUT_B     prompts bit for bit, runs byte for byte, results but for times

The commands: the demo on texts, the demo on pictures, `evaluate`, `beir` with tuned prompts and all baselines on a
small part of SciFact, `evaluate --protocol base-to-new`, and an export's class matrix. Both folders must be made on one
machine, with the same packages and number of threads, and from an empty cache (RETRIEVAL_PROMPTS_CACHE) each: results
say how many texts and pictures they had to encode.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMES = {"seconds", "machine", "device", "versions"}  # of results: what may differ
SMALL = 400  # documents of the small part
TEXT = "import sys; from retrieval_prompts.cli{} import main; main()"
IMAGES = "import sys; from multimodal.cli{} import main; main()"

COMMANDS = (
    "text tune {repo}/eval/data/scifact --out {out}/demo --json {out}/demo.json --report {out}/demo.html",
    "text tune {out}/datasets/small --kind prefix --side both --max-steps 40 --document-steps 8 --out {out}/both"
    " --json {out}/both.json",
    "text evaluate {out}/datasets/small --prompts {out}/demo --strength 0.5 --json {out}/half.json"
    " --run {out}/half.trec",
    "text beir --datasets small --data-dir {out}/datasets --tune --baselines bm25,linear,lora,nudge,rrf"
    " --out {out}/beir --report {out}/beir.html",
    "text compare {out}/beir/small.frozen.trec {out}/beir/small.tuned.trec --qrels {out}/datasets/small"
    " --json {out}/compare.json --tests all",
    "text export {out}/demo --out {out}/exported",
    "images tune {repo}/eval/data/pictures --shots 8 --out {out}/pictures --json {out}/pictures.json"
    " --report {out}/pictures.html",
    "images export {out}/pictures --out {out}/classifier",
    "images tune {repo}/eval/data/pictures --shots 4 --subset base --method tcp --epochs 5 --out {out}/tcp"
    " --json {out}/tcp.json",
    "images tune {repo}/eval/data/pictures --shots 4 --subset base --method promptsrc --epochs 2 --out {out}/src"
    " --json {out}/src.json",
    "images evaluate {repo}/eval/data/pictures --prompts {out}/tcp --protocol base-to-new --json {out}/new.json"
    " --run {out}/new",
)


def text_of(file: Path) -> str:
    return gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()


def small_part(scifact: Path, out: Path) -> None:
    """SciFact cut to the documents that 60 training and 40 test queries ask for, and others up to SMALL."""
    lines = {name: text_of(scifact / f"{name}.jsonl.gz").splitlines() for name in ("corpus", "queries")}
    rows = {name: {json.loads(line)["_id"]: line for line in found} for name, found in lines.items()}
    chosen: dict[str, list[list[str]]] = {}
    for split, count in (("train", 60), ("test", 40)):
        file = next(scifact.glob(f"qrels/{split}.tsv*"))
        judged = [line.split("\t") for line in text_of(file).splitlines()[1:]]
        wanted = set(list(dict.fromkeys(query for query, _, _ in judged))[:count])
        chosen[split] = [row for row in judged if row[0] in wanted]
    documents = {row[1] for part in chosen.values() for row in part}
    others = [id for id in rows["corpus"] if id not in documents]
    documents |= set(random.Random(0).sample(others, max(0, SMALL - len(documents))))
    queries = {row[0] for part in chosen.values() for row in part}
    (out / "qrels").mkdir(parents=True)
    for name, kept in (("corpus", documents), ("queries", queries)):
        (out / f"{name}.jsonl").write_text("".join(f"{line}\n" for id, line in rows[name].items() if id in kept))
    for split, part in chosen.items():
        text = "".join("\t".join(row) + "\n" for row in [["query-id", "corpus-id", "score"], *part])
        (out / "qrels" / f"{split}.tsv").write_text(text)


def run(checkout: Path, out: Path) -> None:
    out.mkdir(parents=True)
    small_part(checkout / "eval/data/scifact", out / "datasets" / "small")
    for words in COMMANDS:
        kind, *arguments = words.format(repo=checkout, out=out).split()
        entry = ".app" if (checkout / "retrieval_prompts/cli/app.py").is_file() else ""
        program = (TEXT if kind == "text" else IMAGES).format(entry)
        environment = {"RETRIEVAL_PROMPTS_CACHE": str(out / "cache"), **os.environ, "PYTHONPATH": str(checkout)}
        print(*arguments, flush=True)
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=out, env=environment)


def plain(value: Any, out: str) -> Any:
    """A result without times, and without the folder that it was made in."""
    if isinstance(value, dict):
        return {key: plain(each, out) for key, each in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [plain(each, out) for each in value]
    return value.replace(out, "OUT") if isinstance(value, str) else value


def compare(one: Path, other: Path) -> int:
    """Print a line a file; returns how many differ."""
    import torch
    from safetensors.torch import load_file

    differ = 0
    files = sorted(
        path.relative_to(one)
        for kind in ("*.safetensors", "*.trec", "*.json", "*.md", "*.qrels.tsv")
        for path in one.rglob(kind)
        if not {"cache", "datasets"} & set(path.relative_to(one).parts) and path.name != "prompt.json"
    )
    for name in files:
        a, b = one / name, other / name
        if not b.is_file():
            same = False
        elif name.suffix == ".safetensors":
            tensors = [load_file(path) for path in (a, b)]
            same = tensors[0].keys() == tensors[1].keys() and all(
                torch.equal(value, tensors[1][key]) for key, value in tensors[0].items()
            )
        elif name.suffix == ".json":
            values = [plain(json.loads(path.read_text()), str(out)) for path, out in ((a, one), (b, other))]
            same = values[0] == values[1]
        else:
            same = a.read_bytes() == b.read_bytes()
        differ += not same
        print("same  " if same else "DIFFER", name)
    print(f"{len(files) - differ} of {len(files)} files are the same")
    return differ


if __name__ == "__main__":
    first, second = Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve()
    if sys.argv[1] == "run":
        run(first, second)
    else:
        sys.exit(bool(compare(first, second)))
