"""The command line: multimodal-prompts. Declares options, prints; the work is done elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts import console
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.classifier import PromptClassifier
    from multimodal.images import ImageData

app = typer.Typer(
    help="Soft prompts for a frozen CLIP: classify with a few images a class, search images with words.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[
    str,
    typer.Argument(
        help="image folder (train/<class>/*, test/... or <class>/*), CSV (path,label[,split]), hf:NAME or "
        "torchvision:NAME; or captions: Karpathy JSON, JSONL, CSV (image,caption)"
    ),
]
Model = Annotated[
    str | None, typer.Option(help="open_clip name, folder or hf-hub:NAME  [default: the small CLIP that comes along]")
]
Pretrained = Annotated[str | None, typer.Option(help="with an open_clip name: a checkpoint file or tag")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an output that exists")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="write the result here as JSON; - for standard output")]
Cache = Annotated[Path | None, typer.Option(help="folder of image features  [default: the user's cache]")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda  [default: the best there is]")]
Strength = Annotated[float | None, typer.Option(help="0 is the frozen model, 1 the whole prompt  [default: as saved]")]
ImagesRoot = Annotated[Path | None, typer.Option("--images", help="folder of a caption file's images")]
ClassFile = Annotated[
    Path | None, typer.Option("--class-file", help="what each class is called: label, tab, name on each line")
]
CAPTION_EPOCHS = 10  # an epoch of captions has several texts an image
Split = Annotated[
    str | None, typer.Option(help="the split to evaluate on  [default: test; all of a caption file without splits]")
]


@app.command()
def tune(
    data: Data,
    out: Annotated[Path, typer.Option(help="the prompt folder to write")],
    model: Model = None,
    pretrained: Pretrained = None,
    method: Annotated[
        str, typer.Option(help="coop, cocoop, kgcoop, prograd, tcp, deep, vpt, maple or promptsrc")
    ] = "coop",
    shots: Annotated[str | None, typer.Option(help="training images a class: a number, or all  [default: 16]")] = None,
    subset: Annotated[str, typer.Option(help="all classes, or their base or new half")] = "all",
    context: Annotated[int | None, typer.Option(help="context vectors  [default: the method's, mostly 4]")] = None,
    init: Annotated[str | None, typer.Option(help="words, or gaussian  [default: a photo of a]")] = None,
    position: Annotated[str | None, typer.Option(help="of the class name: end, middle or front")] = None,
    class_specific: Annotated[bool, typer.Option("--class-specific", help="each class its own context")] = False,
    encoder: Annotated[str | None, typer.Option(help="table, mlp or lstm")] = None,
    template: Annotated[str | None, typer.Option(help="of the frozen class texts  [default: the data set's]")] = None,
    class_file: ClassFile = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training images")] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images a step")] = None,
    weight: Annotated[float | None, typer.Option(help="of the method's regulariser")] = None,
    depth: Annotated[int | None, typer.Option(help="layers with prompts, for deep methods")] = None,
    visual: Annotated[int | None, typer.Option(help="vectors in the image tower, for vpt and promptsrc")] = None,
    views: Annotated[int | None, typer.Option(help="cached views of each image: 1, and random crops")] = None,
    precision: Annotated[str | None, typer.Option(help="of training: auto, float32 or bfloat16")] = None,
    calibrate: Annotated[bool, typer.Option(help="fit the temperature of the probabilities")] = True,
    seed: Annotated[int, typer.Option(help="of the shots, the initial vectors and the batches")] = 1,
    images: ImagesRoot = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Tune prompts on a few images a class, or on captions, and compare them with zero-shot."""
    from retrieval_prompts.files import check_output

    check_output(out, overwrite=overwrite, holds="prompt.json")
    console.check_json(json_file, overwrite)
    from multimodal.settings import Settings

    captions = _is_captions(data)
    if captions and epochs is None:
        epochs = CAPTION_EPOCHS
    labelled = {"--subset": subset != "all", "--class-file": class_file is not None, "--shots": shots is not None}
    _check_kind(captions, images, {**labelled, "--template": template is not None, "--no-calibrate": not calibrate})
    given = dict(
        method=method,
        context=context,
        init=init,
        position=position,
        class_specific=class_specific,
        encoder=encoder,
        template=template,
        epochs=epochs,
        learning_rate=lr,
        batch_size=batch_size,
        weight=weight,
        depth=depth,
        visual=visual,
        views=views,
        precision=precision,
        calibrate=calibrate,
        seed=seed,
    )
    settings = Settings.of(**given, shots=None if captions else _shots(shots or "16"))
    say = console.printer(json_file)
    with _bar() as on_step:
        if captions:
            from multimodal.caption_experiment import tune as tune_on_captions

            result = tune_on_captions(
                Path(data),
                settings,
                out,
                images=images,
                model=model,
                pretrained=pretrained,
                device=device,
                cache=cache,
                overwrite=overwrite,
                on_step=on_step,
                say=say,
            )
        else:
            from multimodal import experiment

            loaded = _load(data, class_file)
            if template is None:
                settings = experiment.with_template(settings, loaded)
            result = experiment.tune(
                loaded,
                settings,
                out,
                subset=subset,
                model=model,
                pretrained=pretrained,
                device=device,
                cache=cache,
                overwrite=overwrite,
                on_step=on_step,
                say=say,
            )
    if json_file is not None:
        console.write_result(json_file, result)
    _report(say, result)
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"\nprompt folder: {out} ({size / 1000:.1f} kB); images encoded now: {result['images_encoded']:,}")
    if captions:
        say("next:\n  multimodal-prompts index FOLDER --out INDEX")
        say(f'  multimodal-prompts search INDEX "words" --prompts {out}')
    else:
        say(f"next:\n  multimodal-prompts classify {out} IMAGE ...")


@app.command()
def classify(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder")],
    images: Annotated[list[Path], typer.Argument(help="images, or folders of images")],
    classes: Annotated[str | None, typer.Option(help="other classes: a,b,c  [default: those of the training]")] = None,
    class_file: ClassFile = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="classes shown for an image")] = 3,
    model: Model = None,
    pretrained: Pretrained = None,
    strength: Strength = None,
    html: Annotated[Path | None, typer.Option(help="also write a page with the pictures")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the predictions as JSON")] = False,
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Say what images show, with calibrated probabilities; images that cannot be read are named and left out."""
    from retrieval_prompts.files import check_output

    if html is not None:
        check_output(html, overwrite=overwrite)
    from multimodal.features import image_features
    from multimodal.pictures import load_pictures

    names = _class_list(classes, class_file)
    classifier = _classifier(prompts, model, pretrained, device, strength)
    pictures = load_pictures(images if len(images) > 1 else images[0])
    readable = image_features(classifier.clip, pictures, cache=cache)
    pictures = [pictures[position] for position in readable.kept]
    found = classifier.predict_proba(pictures, names, cache=cache)
    labels = classifier.known_classes(names).names
    rows = []
    for picture, probabilities in zip(pictures, found, strict=True):
        best = probabilities.argsort()[::-1][:top_k]
        top = [{"class": labels[at], "probability": float(probabilities[at])} for at in best]
        rows.append({"image": picture.place, "top": top})
    if html is not None:
        from multimodal.page import Bar, Figure, page, write_page

        figures = [
            Figure(
                picture.load,
                picture.name,
                bars=tuple(Bar(one["class"], one["probability"]) for one in row["top"]),  # type: ignore[index]
            )
            for picture, row in zip(pictures, rows, strict=True)
        ]
        facts = [f"{len(labels)} classes", f"model {classifier.clip.title}", f"prompts {prompts}"]
        write_page(html, page(f"{len(rows)} images classified", figures, lines=facts))
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        shown = "  ".join(f"{one['class']} {100 * one['probability']:.1f} %" for one in row["top"])  # type: ignore[index]
        print(f"{row['image']}: {shown}")
    if html is not None:
        print(f"page: {html}")


@app.command()
def evaluate(
    data: Data,
    prompts: Annotated[
        list[Path] | None, typer.Option(help="a prompt folder; several that differ in their seed are averaged")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="few-shot, base-to-new, cross-dataset, domain or retrieval  [default: few-shot; retrieval]"),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="for domain: the images that were trained on, for the linear probe")
    ] = None,
    split: Split = None,
    template: Annotated[
        str | None, typer.Option(help="of zero-shot  [default: the prompts', or the data set's]")
    ] = None,
    class_file: ClassFile = None,
    images: ImagesRoot = None,
    model: Model = None,
    pretrained: Pretrained = None,
    strength: Strength = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare zero-shot, tuned prompts and a linear probe; for captions R@1, 5 and 10 both ways."""
    console.check_json(json_file, overwrite)
    say = console.printer(json_file)
    folders = prompts or []
    _check_strength(strength, prompts)
    captions = _is_captions(data)
    _check_kind(captions, images, {"--source": source is not None, "--class-file": class_file is not None})
    if captions:
        if protocol not in (None, "retrieval"):
            raise UserError(f"{data} has captions: expected --protocol retrieval, got {protocol}")
        if len(folders) > 1:
            raise UserError(f"retrieval evaluates one prompt folder at a time, got {len(folders)}")
        from multimodal.caption_experiment import evaluate as evaluate_on_captions

        result = evaluate_on_captions(
            Path(data),
            folders[0] if folders else None,
            images=images,
            split=split,
            model=model,
            pretrained=pretrained,
            device=device,
            strength=strength,
            cache=cache,
        )
    else:
        if protocol == "retrieval":
            raise UserError(f"{data} has no captions; expected Karpathy JSON, JSONL or a CSV with image,caption")
        from multimodal import protocols
        from multimodal.clip import load_clip

        loaded = _load(data, class_file)
        classifiers: list[PromptClassifier] = []
        for folder in folders:
            clip: Any = classifiers[0].clip if classifiers else model
            classifiers.append(_classifier(folder, clip, pretrained, device, strength))
        result = protocols.evaluate(
            protocol or "few-shot",
            loaded,
            classifiers,
            clip=None if classifiers else load_clip(model, pretrained, device=device),
            source=_load(source, class_file) if source is not None else None,
            split=split or "test",
            template=template,
            cache=cache,
        )
    if json_file is not None:
        console.write_result(json_file, result)
    _report(say, result)


@app.command()
def index(
    images: Annotated[Path, typer.Argument(help="a folder of images")],
    out: Annotated[Path, typer.Option(help="the index folder to write")],
    model: Model = None,
    pretrained: Pretrained = None,
    captions: Annotated[Path | None, typer.Option(help="a caption file, to show captions with the hits")] = None,
    factory: Annotated[str, typer.Option(help="FAISS index string: Flat, HNSW32, IVF256,SQ8 ...")] = "Flat",
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Encode images and build a FAISS index. Prompts for the text side change nothing here."""
    from retrieval_prompts.files import check_output

    check_output(out, overwrite=overwrite, holds="manifest.json")
    from multimodal.clip import load_clip
    from multimodal.pictures import load_pictures
    from multimodal.retrieval import build_index

    pictures = load_pictures(images)
    texts: dict[str, str] = {}
    if captions is not None:
        from multimodal.captions import load_captions

        described = load_captions(captions, images=images)
        texts = {
            picture.name: " / ".join(own) for picture, own in zip(described.pictures, described.captions, strict=True)
        }
    root = images if images.is_dir() else images.parent
    built = build_index(
        load_clip(model, pretrained, device=device), pictures, root=root, texts=texts, factory=factory, cache=cache
    )
    built.save(out, overwrite=overwrite)
    print(f"{out}: {len(built):,} images, {factory}")
    print(f'next: multimodal-prompts search {out} "a red boat" --html boats.html')


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="an index folder")],
    query: Annotated[str | None, typer.Argument(help="what to look for")] = None,
    image: Annotated[Path | None, typer.Option(help="look for images like this one instead")] = None,
    prompts: Annotated[Path | None, typer.Option(help="a prompt folder, for the words")] = None,
    strength: Strength = None,
    model: Annotated[str | None, typer.Option(help="the model, when it has moved  [default: the index's own]")] = None,
    pretrained: Pretrained = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="how many hits")] = 10,
    html: Annotated[Path | None, typer.Option(help="also write a page with the pictures")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the hits as JSON")] = False,
    nprobe: Annotated[int | None, typer.Option(help="lists that an IVF index visits")] = None,
    ef_search: Annotated[int | None, typer.Option(help="candidates that an HNSW index keeps")] = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Search an index of images with words, or with an image."""
    from retrieval_prompts.files import check_output

    if (query is None) == (image is None):
        raise UserError("give either words to look for, or --image")
    if query is not None and not query.strip():
        raise UserError("the query is empty; write what you look for in quotes")
    if image is not None and prompts is not None:
        raise UserError("--prompts belong to words; a search by image has none")
    if image is not None and image.is_dir():
        raise UserError(f"{image} is a folder; --image expects one picture")
    _check_strength(strength, prompts)
    if html is not None:
        check_output(html, overwrite=overwrite)
    from multimodal import retrieval
    from multimodal.clip import load_clip
    from multimodal.pictures import load_pictures
    from multimodal.texts import text_vectors
    from retrieval_prompts.index import Index

    opened = Index.open(index)
    maker = opened.manifest["encoder"]
    if "images" not in maker:
        raise UserError(f"{index} is no index of images; texts are searched by retrieval-prompts search")
    clip = load_clip(model or maker["model"], pretrained or (None if model else maker.get("pretrained")), device=device)
    opened.check_encoder(retrieval.encoder(clip))
    asked = None
    if image is not None:
        (asked,) = load_pictures(image)
        vector = retrieval.picture_vector(clip, asked)
    else:
        used: Any = (None, 1.0)
        if prompts is not None:
            used = retrieval.search_prompts(_classifier(prompts, clip, strength=strength))
        vector = text_vectors(clip, [str(query)], used[0], strength=used[1])
    hits = retrieval.search(opened, vector, top_k, nprobe=nprobe, ef_search=ef_search)
    if html is not None:
        from multimodal.page import Figure, page, write_page

        figures = [Figure(hit.picture.load, hit.title, hit.text, f"{hit.score:.3f}") for hit in hits]
        facts = [f"{len(opened):,} images", f"model {clip.title}", *([f"prompts {prompts}"] if prompts else [])]
        heading = f"“{query}”" if asked is None else f"Like {asked.name}"
        shown = None if asked is None else Figure(asked.load, asked.name)
        write_page(html, page(heading, figures, lines=facts, query=shown))
    if as_json:
        rows = [{"id": hit.id, "score": hit.score, "text": hit.text, "path": hit.picture.place} for hit in hits]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for rank, hit in enumerate(hits, start=1):
        print(f"{rank:3}. {hit.score:.4f}  {hit.id}{f'  {hit.text[:100]}' if hit.text else ''}")
    if html is not None:
        print(f"page: {html}")


@app.command()
def export(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder")],
    out: Annotated[Path, typer.Option(help="the folder to write")],
    classes: Annotated[str | None, typer.Option(help="other classes: a,b,c  [default: those of the training]")] = None,
    class_file: ClassFile = None,
    model: Model = None,
    pretrained: Pretrained = None,
    strength: Strength = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the class matrix (safetensors), the names, and a FAISS index of the classes."""
    from retrieval_prompts.files import check_output

    check_output(out, overwrite=overwrite, holds="classes.json")
    classifier = _classifier(prompts, model, pretrained, device, strength)
    names = _class_list(classes, class_file)
    classifier.export(out, names, overwrite=overwrite)
    print(f"{out}: classes.safetensors, classes.json, index/ ({len(classifier.known_classes(names))} classes)")


def main() -> None:
    """Run the command line; see `console.run`."""
    console.run(app)


def _is_captions(data: str) -> bool:
    path = Path(data)
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in (".json", ".jsonl"):
        return True
    if suffix not in (".csv", ".tsv", ".txt") or not path.is_file():
        return False
    from retrieval_prompts.data import read_lines

    _, header = next(read_lines(path), (1, ""))
    return "caption" in header.lower()


def _load(data: str, class_file: Path | None) -> ImageData:
    from multimodal.images import load_images
    from multimodal.names import read_names, renamed

    loaded = load_images(data)
    return loaded if class_file is None else renamed(loaded, read_names(class_file))


def _class_list(classes: str | None, class_file: Path | None) -> list[str] | None:
    if classes is not None and class_file is not None:
        raise UserError("give either --classes or --class-file, not both")
    if class_file is not None:
        from multimodal.names import read_names

        return list(read_names(class_file).values())
    if classes is None:
        return None
    names = [name.strip() for name in classes.split(",")]
    if "" in names:
        raise UserError(f"--classes {classes!r} has an empty name; write --classes cat,dog,horse")
    return names


def _classifier(
    folder: Path,
    model: Any = None,
    pretrained: str | None = None,
    device: str | None = None,
    strength: float | None = None,
) -> PromptClassifier:
    from multimodal.classifier import PromptClassifier

    return PromptClassifier.load(folder, model, pretrained=pretrained, device=device, strength=strength)


def _check_kind(captions: bool, images: Path | None, labelled: dict[str, bool]) -> None:
    """Refuse options that the kind of data has no use for. `labelled`: an option of labelled data -> is it given."""
    if captions and any(labelled.values()):
        given = ", ".join(option for option, there in labelled.items() if there)
        raise UserError(f"captions have no classes; leave out {given}")
    if images is not None and not captions:
        raise UserError("--images is the folder of a caption file's images; leave it out")


def _check_strength(strength: float | None, prompts: Any) -> None:
    if strength is not None and not prompts:
        raise UserError("--strength is that of a prompt; pass --prompts as well")


def _shots(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or not int(text):
        raise UserError(f"--shots must be a number from 1, or all, got {text!r}")
    return int(text)


@contextmanager
def _bar() -> Iterator[Callable[[Any, int], None]]:
    """A callback that draws a progress bar of training steps, closed before anything else is printed."""
    bar: Any = None

    def on_step(step: Any, total: int) -> None:
        nonlocal bar
        if bar is None:
            from tqdm import tqdm

            bar = tqdm(total=total, desc="tune", unit="step", initial=max(0, step.step - 1), delay=1)
        bar.update(step.step - bar.n)
        bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
        if step.step == total:
            bar.close()

    try:
        yield on_step
    finally:
        if bar is not None:
            bar.close()


def _report(say: Any, result: dict[str, Any]) -> None:
    if not result["systems"]:
        return
    if result["protocol"] == "retrieval":
        from multimodal.caption_experiment import table
    else:
        from multimodal.protocols import table
    say(table(result))
    skipped = result["settings"].get("images_skipped", 0)
    if skipped:
        print(f"{skipped} images could not be read and are not counted", file=sys.stderr)


if __name__ == "__main__":
    main()
