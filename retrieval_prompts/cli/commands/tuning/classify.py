"""retrieval-prompts classify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Device, JsonFile, Model, Overwrite, Trust, with_settings
from retrieval_prompts.errors import UserError
from retrieval_prompts.training.tasks.settings import LabelSettings

if TYPE_CHECKING:
    from retrieval_prompts.data.sources.labelled import LabelledTexts
    from retrieval_prompts.interop.text_classifier import PromptTextClassifier
    from retrieval_prompts.towers.text import TextTower

SHOWN = 60  # characters of a text


@with_settings(LabelSettings, "kind", "length", "max_steps", "learning_rate", "seed")
def classify(
    data: Annotated[Path, typer.Argument(help="texts, with labels to learn from: CSV, TSV, JSON lines, Parquet")],
    given: dict[str, Any],
    out: Annotated[
        Path | None, typer.Option(help="learn from the labels of DATA, and write the classifier here")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="a classifier that --out has written: name the texts")] = None,
    labels: Annotated[str | None, typer.Option(help="name the texts by these labels, without examples: a,b,c")] = None,
    test: Annotated[
        Path | None, typer.Option(help="labelled texts to compare on  [default: a fifth of DATA, not learned from]")
    ] = None,
    text: Annotated[str | None, typer.Option(help="the column of texts  [default: guessed]")] = None,
    label: Annotated[str | None, typer.Option(help="the column of labels  [default: guessed]")] = None,
    name: Annotated[
        list[str] | None, typer.Option(help='what a label is called: --name "pos=a favourable review"')
    ] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="examples of each label  [default: all]")] = None,
    head: Annotated[
        str | None,
        typer.Option(help="names, linear, or auto: both in the shares that held-out examples want  [default: auto]"),
    ] = None,
    model: Model = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Label texts: learn from labelled ones, or name them by a classifier or by the names of labels alone.

    A soft prompt brings texts nearer to the names of their labels, beside a linear head; held-out training examples
    decide how much each counts, and a table compares with the frozen model and with a linear probe.

    Examples:

      retrieval-prompts classify train.csv --test test.csv --out TOPICS

      retrieval-prompts classify new.csv --prompts TOPICS --json labels.json

      retrieval-prompts classify new.csv --labels "sports,politics,science"
    """
    if sum(each is not None for each in (out, prompts, labels)) != 1:
        raise UserError("pass --out to learn, --prompts for a classifier that was learned, or --labels for names alone")
    named = name if labels is None else None
    _check_read(out, prompts, test=test, shots=shots, name=named, head=head, settings=given or None)
    console.check_outputs(json_file, overwrite=overwrite)
    if out is not None:
        from retrieval_prompts.files import PROMPTS

        console.claim(out, overwrite=overwrite, holds=PROMPTS)
    from retrieval_prompts.data.sources.labelled import read_labelled

    texts = read_labelled(data, text, label, wanted=out is not None)
    tested = read_labelled(test, text, label) if test is not None else None
    say = console.printer(json_file)
    say("\n".join(each.what for each in (texts, tested) if each is not None))
    from retrieval_prompts.interop.text_classifier import PromptTextClassifier
    from retrieval_prompts.towers.text import DEFAULT_MODEL, load_tower

    def tower(named: str) -> TextTower:
        return load_tower(named, device=device, trust_remote_code=trust_remote_code)

    if prompts is not None:
        from retrieval_prompts.prompts.label_folder import load_labels

        known = PromptTextClassifier.load(prompts, tower(model or load_labels(prompts).base["name"]))
        _predict(say, known, texts, json_file)
        return
    options = {"random_state" if each == "seed" else each: value for each, value in given.items()}
    fresh = PromptTextClassifier(tower(model or DEFAULT_MODEL), _names(name), head or "auto", **options)
    if labels is not None:
        _predict(say, fresh.zero_shot([each.strip() for each in labels.split(",") if each.strip()]), texts, json_file)
        return
    found = _learn(say, fresh, texts, tested, shots)
    assert out is not None
    fresh.save(out, overwrite=overwrite)
    if json_file is not None:
        console.write_result(json_file, found)
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"\nclassifier: {out} ({size / 1000:.1f} kB)\nnext:\n  retrieval-prompts classify new.csv --prompts {out}")


def _check_read(out: Path | None, prompts: Path | None, **given: Any) -> None:
    """Raises UserError for options that nothing reads."""
    if out is not None:
        return
    for name, value in given.items():
        if value is not None:
            said = "settings of a prompt are" if name == "settings" else f"--{name} is"
            raise UserError(f"{said} used with --out, not with {'--prompts' if prompts is not None else '--labels'}")


def _names(given: list[str] | None) -> dict[str, str] | None:
    """Label -> what it is called."""
    names = {}
    for each in given or []:
        label, equals, words = each.partition("=")
        if not (equals and label.strip() and words.strip()):
            raise UserError(f"--name must be LABEL=WORDS, got {each!r}")
        names[label.strip()] = words.strip()
    return names or None


def _learn(
    say: Any, classifier: PromptTextClassifier, texts: LabelledTexts, tested: LabelledTexts | None, shots: int | None
) -> dict[str, Any]:
    """Fit, print the table beside the baselines; returns the result."""
    import numpy as np

    from retrieval_prompts.data.sources.labelled import few_shot, held_out
    from retrieval_prompts.evaluation.tables import rich_table
    from retrieval_prompts.experiments.labelled_texts import METRICS, SYSTEMS, compared

    seed, apart = classifier.random_state, tested is None
    if tested is None:
        rest, out = held_out(texts.labels, seed)
        texts, tested = texts.take(rest), texts.take(out)
    if shots is not None:
        texts = texts.take(few_shot(texts.labels, shots, seed))
    if unknown := sorted(set(tested.labels) - set(texts.labels)):
        raise UserError(f"the test texts have the label {unknown[0]!r}, which no training text has")
    classifier.fit(texts.texts, texts.labels)
    classes = classifier.classes_.tolist()
    say(f"learned from {len(texts.texts):,} texts of {len(classes)} labels; {classifier.choice_}")
    numbers, answers = (np.array([classes.index(each) for each in part.labels]) for part in (texts, tested))
    systems = compared(classifier.two_parts_, tested.texts, answers, (texts.texts, numbers)) if len(answers) else {}
    if systems:
        say(f"\n{len(answers):,} test texts{', held out' if apart else ''} (x 100)")
        rows = [
            [SYSTEMS[system], *(100 * scores[each] if each in scores else None for each in METRICS)]
            for system, scores in systems.items()
        ]
        say(rich_table(rows, ["system", *METRICS.values()]))
    return {
        "model": classifier.two_parts_.biencoder.tower.name,
        "labels": classes,
        "train_texts": len(texts.texts),
        "test_texts": len(answers),
        "held_out_of_train": apart,
        "choice": classifier.choice_,
        "held_out": classifier.two_parts_.held_out,
        "share": classifier.two_parts_.share,
        "strength": classifier.two_parts_.strength,
        "systems": systems,
    }


def _predict(say: Any, classifier: PromptTextClassifier, texts: LabelledTexts, json_file: Path | None) -> None:
    """Print, or write, the label of each text with its probability; where labels are known, how many are right."""
    import numpy as np

    found = classifier.predict_proba(texts.texts)
    classes, best = classifier.classes_.tolist(), found.argmax(axis=1)
    rows = [
        {"text": text, "label": classes[at], "probability": float(row[at])}
        for text, at, row in zip(texts.texts, best.tolist(), found, strict=True)
    ]
    if json_file is not None:
        console.write_result(json_file, rows)
    for row in rows if json_file is None else []:
        say(f"{row['label']} {100 * row['probability']:.1f} %: {' '.join(row['text'].split())[:SHOWN]}")
    known = [at for at, each in enumerate(texts.labels) if each in map(str, classes)]
    if known:
        from retrieval_prompts.experiments.labelled_texts import scored

        truth = np.array([list(map(str, classes)).index(texts.labels[at]) for at in known])
        scores = scored(found[known], truth)
        said = f"accuracy {100 * scores['accuracy']:.1f}, macro-F1 {100 * scores['macro_f1']:.1f}"
        say(f"{len(known):,} of them have a label that is known: {said}")
