"""The command line: retrieval-prompts. Declares options, prints; the work is done elsewhere."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts import console
from retrieval_prompts.errors import UserError
from retrieval_prompts.settings import DEFAULTS, TuneSettings

if TYPE_CHECKING:
    from retrieval_prompts.experiment import Experiment

app = typer.Typer(
    help="Soft prompts for frozen retrievers: tune a few kilobytes, keep the document index.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DataFolder = Annotated[Path, typer.Argument(help="BEIR folder: corpus.jsonl, queries.jsonl, qrels/*.tsv (or .gz)")]
Model = Annotated[str | None, typer.Option(help="name, local folder or hub id  [default: all-MiniLM-L6-v2]")]
Prompts = Annotated[Path | None, typer.Option(help="a prompt folder")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an output that exists")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="write the result here as JSON; - for standard output")]
Cache = Annotated[Path | None, typer.Option(help="folder of document vectors  [default: the user's cache]")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps  [default: the best there is]")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="run code that a model brings along")]
Strength = Annotated[float | None, typer.Option(help="0 is the frozen model, 1 the whole prompt  [default: as saved]")]


def _help(text: str, name: str) -> str:
    """Help that ends with a setting's default, or with one for each kind of prompt."""
    kinds = {kind: defaults[name] for kind, defaults in DEFAULTS.items() if name in defaults}
    default = ", ".join(f"{value} {kind}" for kind, value in kinds.items()) or getattr(TuneSettings, name)
    return f"{text}  [default: {default}]"


@app.command()
def tune(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="the prompt folder to write")],
    model: Model = None,
    side: Annotated[str, typer.Option(help="query, document or both")] = "query",
    kind: Annotated[str, typer.Option(help="input or prefix")] = "input",
    encoder: Annotated[str, typer.Option(help="table, mlp or lstm")] = "table",
    length: Annotated[int | None, typer.Option(help=_help("vectors a prompt", "length"))] = None,
    init: Annotated[str | None, typer.Option(help=_help("text:WORDS, vocab or gaussian", "init"))] = None,
    common: Annotated[bool, typer.Option("--common", help="with both sides: add a part that they share")] = False,
    epochs: Annotated[
        int | None, typer.Option(help=_help("passes over the training queries, at most", "epochs"))
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help=_help("end training after so many steps at the latest", "max_steps"))
    ] = None,
    document_steps: Annotated[
        int | None, typer.Option(help=_help("the same for steps that encode documents", "document_steps"))
    ] = None,
    lr: Annotated[float | None, typer.Option(help=_help("peak learning rate", "learning_rate"))] = None,
    document_lr: Annotated[
        float | None, typer.Option(help=_help("lr of steps that encode documents", "document_learning_rate"))
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help=_help("queries a step", "batch_size"))] = None,
    temperature: Annotated[float | None, typer.Option(help="of the softmax  [default: 0.05 cosine, 1 dot]")] = None,
    negatives: Annotated[str | None, typer.Option(help="corpus, in-batch or mined  [default: corpus]")] = None,
    symmetric: Annotated[bool, typer.Option("--symmetric", help="also compare documents with queries")] = False,
    precision: Annotated[str, typer.Option(help="of training: auto, float32 or bfloat16")] = "auto",
    patience: Annotated[
        int | None, typer.Option(help="stop after so many dev scores (of 10) without a better one")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the initial vectors, the batches and the draws")] = 0,
    split: Annotated[
        str | None, typer.Option(help="split to evaluate on afterwards  [default: test, if there is one]")
    ] = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Tune soft prompts on a data set, and compare them with the frozen model and BM25."""
    from retrieval_prompts.files import check_output

    check_output(out, overwrite=overwrite, holds="prompt.json")
    console.check_json(json_file, overwrite)
    from retrieval_prompts.data import load
    from retrieval_prompts.experiment import dev_split

    settings = TuneSettings.of(
        side=side,
        kind=kind,
        encoder=encoder,
        length=length,
        init=init,
        common=common,
        epochs=epochs,
        max_steps=max_steps,
        document_steps=document_steps,
        learning_rate=lr,
        document_learning_rate=document_lr,
        batch_size=batch_size,
        temperature=temperature,
        negatives=negatives,
        symmetric=symmetric,
        precision=precision,
        patience=patience,
        seed=seed,
    )
    dataset = load(data)
    training, dev, held_out = dev_split(dataset)
    say = console.printer(json_file)
    split = split or ("test" if "test" in dataset.qrels else None)
    say(
        f"{dataset.name}: {len(dataset.corpus):,} documents; queries: {len(training):,} train, {len(dev):,} dev"
        + (" (no dev split: held out of train)" if held_out else "")
        + (f", {len(dataset.split(split)[1]):,} {split}" if split else ", no test split")
    )
    from tqdm import tqdm

    from retrieval_prompts import experiment
    from retrieval_prompts.biencoder import BiEncoder

    biencoder = BiEncoder.load(model, device=device, trust_remote_code=trust_remote_code)
    bar: Any = None

    def on_step(step: Any, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, desc="tune", unit="step", initial=step.step)
        bar.update(step.step - bar.n)
        if not math.isnan(step.loss):  # the record of a dev score before training has none
            bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
        if step.dev is not None:
            name = f"step {step.step}" if step.step else "before training"
            bar.write(f"{name}: dev nDCG@10 {step.dev:.4f}{' *' if step.best else ''}", file=sys.stderr)

    try:
        found = experiment.tune(
            biencoder, dataset, settings, split=split, out=out, overwrite=overwrite, cache=cache, on_step=on_step
        )
    finally:
        if bar is not None:
            bar.close()  # so that an error stands on a line of its own
    if json_file is not None:
        console.write_result(json_file, found.result)
    _report(say, found)
    dev_scores = found.result["settings"]["dev"]
    say(f"dev nDCG@10: frozen {dev_scores['frozen']:.4f}, tuned {dev_scores['tuned']:.4f}")
    if side == "both" and "document" not in biencoder.prompts:
        earned = found.result["settings"]["document_prompt_on_dev"]
        say(
            f"the document prompt was dropped: on dev it changes nDCG@10 by {100 * earned['difference']:+.1f} "
            f"(p = {earned['p_value']:.2f}), too little to encode the corpus for; the query prompt is saved alone"
        )
    if biencoder.strength == 0:
        say("no prompt beat the frozen model on dev: the saved one has strength 0, which is the frozen model")
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"\nprompt folder: {out} ({size / 1000:.1f} kB); documents re-encoded: {found.result['documents_reencoded']:,}")
    again = f" --model {model}" if model else ""
    with_prompts = f" --prompts {out}" if "document" in biencoder.prompts else ""
    say(
        "next:\n"
        f"  retrieval-prompts index {data} --out INDEX{again}{with_prompts}\n"
        f'  retrieval-prompts search INDEX "a question" --prompts {out}'
    )


@app.command()
def evaluate(
    data: DataFolder,
    model: Model = None,
    prompts: Prompts = None,
    split: Annotated[str, typer.Option(help="the split to evaluate on")] = "test",
    strength: Strength = None,
    json_file: JsonFile = None,
    run: Annotated[Path | None, typer.Option(help="write the ranking here as a TREC run")] = None,
    bm25: Annotated[bool, typer.Option(help="with BM25 beside it")] = True,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Compare frozen, tuned and BM25 on a split, with a paired test. --run takes the tuned ranking, else the frozen."""
    from retrieval_prompts.files import check_output

    console.check_json(json_file, overwrite)
    if run is not None:
        check_output(run, overwrite=overwrite)
    from retrieval_prompts import experiment
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.data import load
    from retrieval_prompts.evaluate import write_run

    _check_strength(strength, prompts)
    dataset = load(data)
    queries, _ = dataset.split(split)
    say = console.printer(json_file)
    say(f"{dataset.name}: {len(dataset.corpus):,} documents, {len(queries):,} {split} queries")
    biencoder = BiEncoder.load(model, prompts, device=device, strength=strength, trust_remote_code=trust_remote_code)
    found = experiment.evaluate(biencoder, dataset, split, cache=cache, bm25=bm25)
    if json_file is not None:
        console.write_result(json_file, found.result)
    if run is not None:
        system = "tuned" if prompts is not None else "frozen"
        write_run(run, found.runs[system], system)
        say(f"{system} run: {run}")
    _report(say, found)


@app.command()
def index(
    data: Annotated[Path, typer.Argument(help="BEIR folder; only its corpus is read")],
    out: Annotated[Path, typer.Option(help="the index folder to write")],
    model: Model = None,
    prompts: Annotated[Path | None, typer.Option(help="a prompt folder, when its document side is tuned")] = None,
    factory: Annotated[str, typer.Option(help="FAISS index string: Flat, HNSW32, IVF256,SQ8 ...")] = "Flat",
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Encode a corpus and build a FAISS index. Prompts for the query side alone change nothing here."""
    from retrieval_prompts.files import check_output

    check_output(out, overwrite=overwrite, holds="manifest.json")
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.data import load_corpus
    from retrieval_prompts.index import Index

    corpus = load_corpus(data)
    biencoder = BiEncoder.load(model, prompts, device=device, trust_remote_code=trust_remote_code)
    documents = biencoder.encode_corpus(corpus, cache)
    built = Index.build(documents, corpus, corpus.ids, factory=factory, encoder=biencoder.identity())
    built.save(out, overwrite=overwrite)
    print(f"{out}: {len(built):,} documents, {factory}; {documents.encoded:,} encoded now, the rest found in the cache")
    print(f'next: retrieval-prompts search {out} "a question"{f" --prompts {prompts}" if prompts else ""}')


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="an index folder")],
    query: Annotated[str, typer.Argument(help="the question")],
    prompts: Prompts = None,
    model: Annotated[str | None, typer.Option(help="the model, when it has moved  [default: the index's own]")] = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="how many hits")] = 10,
    strength: Strength = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the hits as JSON")] = False,
    nprobe: Annotated[int | None, typer.Option(help="lists that an IVF index visits")] = None,
    ef_search: Annotated[int | None, typer.Option(help="candidates that an HNSW index keeps")] = None,
    device: Device = None,
    trust_remote_code: Trust = False,
) -> None:
    """Search an index with a question."""
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.index import Index

    if not query.strip():
        raise UserError("the question is empty; write what you look for in quotes")
    _check_strength(strength, prompts)
    opened = Index.open(index)
    biencoder = BiEncoder.load(
        model or opened.manifest["encoder"]["model"],
        prompts,
        device=device,
        strength=strength,
        trust_remote_code=trust_remote_code,
    )
    opened.check_encoder(biencoder.identity())
    vector = biencoder.tower.comparable(biencoder.encode_query([query]))
    scores, ids = opened.search(vector, top_k, nprobe=nprobe, ef_search=ef_search)
    hits = []
    for score, id in zip(scores[0].tolist(), ids[0], strict=False):
        document = opened.document(id)
        hits.append({"id": id, "score": score, "title": document.title, "text": document.text})
    if as_json:
        print(json.dumps(hits, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for rank, hit in enumerate(hits, start=1):
        line = Text(f"{rank:3}. {hit['score']:.4f}  ")
        line.append(hit["title"] or hit["id"], style="bold")
        console.print(line, soft_wrap=True)
        console.print(Text(f"     [{hit['id']}] {_snippet(hit['text'])}"), style="dim", soft_wrap=True)


@app.command()
def export(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder of input prompts")],
    out: Annotated[Path, typer.Option(help="the checkpoint folder to write")],
    model: Annotated[str | None, typer.Option(help="the base model, when it has moved  [default: as saved]")] = None,
    strength: Strength = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a stock sentence-transformers checkpoint that every tool loads."""
    from retrieval_prompts.files import check_output

    check_output(out, overwrite=overwrite, holds="modules.json")
    from retrieval_prompts.artifacts import read_description
    from retrieval_prompts.export import check_exportable

    saved = read_description(prompts)
    check_exportable(saved["kind"], saved["strength"] if strength is None else strength)
    from retrieval_prompts.biencoder import BiEncoder

    biencoder = BiEncoder.load(model, prompts, device=device, strength=strength, trust_remote_code=trust_remote_code)
    biencoder.export(out, overwrite=overwrite)
    print(f"{out}: a stock sentence-transformers checkpoint, compared with these prompts on sample texts")
    print(f'next: SentenceTransformer("{out}").encode_query("a question")')


def main() -> None:
    """Run the command line; see `console.run`."""
    console.run(app)


def _report(say: Any, found: Experiment) -> None:
    from retrieval_prompts.evaluate import table

    systems = found.result["systems"]
    if not systems:
        return
    say(f"\n{found.result['dataset']}, {found.result['split']} (x 100)")
    say(table(systems))
    for name, test in found.result["tests"].items():
        low, high = test["ci95"]
        count = test["helped"] + test["hurt"] + test["unchanged"]
        which = "" if name == "tuned_vs_frozen" else f" on the {count} queries whose documents no training query had"
        verdict = "a significant" if test["p_value"] < 0.05 else "no significant"
        say(
            f"tuned - frozen{which}, {test['metric']}: {100 * test['difference']:+.1f} [{100 * low:+.1f}, "
            f"{100 * high:+.1f}], p = {test['p_value']:.4f}: {verdict} difference; {test['helped']} helped, "
            f"{test['hurt']} hurt, {test['unchanged']} unchanged"
        )
    if "bm25" in systems:
        best = max(systems, key=lambda system: systems[system]["ndcg@10"])
        if best == "bm25":
            say("BM25 is the best here")


def _check_strength(strength: float | None, prompts: Path | None) -> None:
    if strength is not None and prompts is None:
        raise UserError("--strength is that of a prompt; pass --prompts as well")


def _snippet(text: str, width: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1].rsplit(" ", 1)[0] + " …"


if __name__ == "__main__":
    main()
