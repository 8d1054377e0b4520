"""index and search of pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_clip
import torch
from command_line import Command
from image_commands import fitted, refused

from multimodal.classifier import PromptClassifier
from retrieval_prompts.files import sealed
from retrieval_prompts.vectors.index import Index


def test_index_then_search(command: Command, clip_folder: Path, caption_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    options = ["--captions", caption_folder / "captions.csv", "--model", clip_folder, "--device", "cpu"]
    done = command("index", caption_folder, "--out", out, *options)
    assert (done.code, done.err) == (0, "")
    assert done.out == f'{out}: 24 images, Flat\nnext: multimodal-prompts search {out} "a red boat" --html boats.html\n'
    assert len(Index.open(out)) == 24

    done = command("search", out, "a blue picture", "-k", "5", "--json", "-")
    assert (done.code, done.err) == (0, "")
    assert [list(hit) for hit in done.json] == [["id", "score", "text", "path"]] * 5
    scores = [hit["score"] for hit in done.json]
    assert scores == sorted(scores, reverse=True)
    for hit in done.json:
        assert Path(hit["path"]) == caption_folder / hit["id"] and " / Something " in hit["text"]
    lines = command("search", out, "a blue picture", "-k", "5").out.splitlines()
    first = done.json[0]
    assert lines[0].split("  ")[-2:] == [first["id"], first["text"][:100]] and len(lines) == 5
    assert len(command("search", out, "blue", "-k", "100", "--json", "-").json) == 24


def test_search_by_image(command: Command, index: Path, caption_folder: Path, tmp_path: Path) -> None:
    image, page = caption_folder / "pictures" / "pink1.png", tmp_path / "like.html"
    done = command("search", index, "--image", image, "--json", "-", "--html", page, "-k", "3")
    assert done.json[0]["id"] == "pictures/pink1.png"
    assert done.json[0]["score"] == pytest.approx(1, abs=1e-3)
    assert all("pink" in hit["id"] for hit in done.json), "the model sees colours, if it cannot name them"
    text = page.read_text()
    assert text.count("<img") == 4 and "Like pink1.png" in text
    refused(command("search", index, "--image", image, "--html", page), "like.html exists already")


def test_a_page_shows_no_picture_that_was_not_indexed(
    command: Command, clip_folder: Path, caption_folder: Path, tmp_path: Path
) -> None:
    images, out, page = tmp_path / "images", tmp_path / "index", tmp_path / "page.html"
    shutil.copytree(caption_folder / "pictures", images)
    assert command("index", images, "--out", out, "--model", clip_folder).code == 0
    (images / "pink1.png").write_bytes((images / "pink0.png").read_bytes())
    for name in ("blue0.png", "blue1.png"):
        (images / name).unlink()
    done = command("search", out, "--image", images / "pink0.png", "--html", page, "-k", "24")
    assert done.code == 0 and page.read_text().count("<img") == 1 + 21
    assert done.err.startswith("warning: 3 of 24 pictures are not on the page: ") and done.err.count("\n") == 1
    command("search", out, "pink", "--html", page, "-k", "24", "--overwrite", "--images", caption_folder / "pictures")
    assert page.read_text().count("<img") == 24
    refused(
        command("search", out, "pink", "--images", page), "page.html is not a folder; --images expects the one that"
    )


def test_search_with_prompts(
    command: Command, index: Path, caption_prompts: Path, prompts: Path, tmp_path: Path
) -> None:
    def hits(*options: object) -> list[tuple[str, float]]:
        done = command("search", index, "a pink picture", "--json", "-", *options)
        assert done.code == 0, done.err
        return [(hit["id"], hit["score"]) for hit in done.json]

    plain, tuned = hits(), hits("--prompts", caption_prompts, "--strength", 1)
    assert plain != tuned
    assert hits("--prompts", caption_prompts, "--strength", "0") == plain
    assert hits("--prompts", caption_prompts, "--strength", "0.5") not in (plain, tuned)
    assert hits("--prompts", prompts) not in (plain, tuned), "those of classes serve, too"
    page = tmp_path / "page.html"
    done = command("search", index, "a pink picture", "--prompts", caption_prompts, "--html", page)
    assert done.out.endswith(f"page: {page}\n")
    assert page.read_text().count("<img") == 10 and "“a pink picture”" in page.read_text()


def test_search_twice(
    command: Command, index: Path, caption_folder: Path, clip_folder: Path, picture_folder: Path, tmp_path: Path
) -> None:
    """With feedback words are searched with again, as evaluate on captions does."""
    captions, out = caption_folder / "captions.csv", tmp_path / "prompts"
    options = ["--model", clip_folder, "--device", "cpu", "--method", "feedback", "--feedback", "2", "--lr", "0.05"]
    done = command("tune", captions, "--out", out, "--json", tmp_path / "result.json", *options)
    assert (done.code, done.err) == (0, "")
    systems = json.loads((tmp_path / "result.json").read_text())["systems"]
    assert systems.keys() == {"zero-shot", "tuned"}
    done = command("evaluate", captions, "--prompts", out, "--strength", "1", "--json", "-")
    assert done.code == 0 and done.json["systems"]["zero-shot"] == systems["zero-shot"]

    def hits(*options: object) -> list[tuple[str, float]]:
        done = command("search", index, "a pink picture", "--json", "-", *options)
        assert (done.code, done.err) == (0, "")
        return [(hit["id"], hit["score"]) for hit in done.json]

    learned = PromptClassifier.load(out, device="cpu")  # of so few captions nothing: they are moved by hand
    for number, parameter in enumerate(learned.method.prompter.parameters()):
        drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data.add_(drawn)
    learned.save(out, overwrite=True)
    assert hits("--prompts", out, "--strength", "1") != hits()
    assert hits("--prompts", out, "--strength", "0") == hits()
    file = picture_folder / "test" / "blue" / "0.png"
    refused(command("classify", out, file, "--classes", "a,b", "--strength", "1"), "feedback prompts are made for each")
    refused(command("export", out, "--out", tmp_path / "x", "--classes", "a,b"), "feedback prompts are made for each")
    refused(
        command("tune", picture_folder, "--out", tmp_path / "y", "--shots", "3", *options[:6]),
        "--method feedback learns how words",
    )


def test_a_model_that_moved(
    command: Command, clip_folder: Path, index: Path, prompts: Path, picture_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(clip_folder, tmp_path / "moved")
    expected = command("search", index, "pink", "--json", "-")
    assert command("search", index, "pink", "--json", "-", "--model", tmp_path / "moved").out == expected.out
    file = picture_folder / "test" / "blue" / "0.png"
    assert command("classify", prompts, file, "--model", tmp_path / "moved").code == 0
    other = tiny_clip.write_clip(tmp_path / "other", seed=1)
    refused(
        command("classify", prompts, file, "--model", other), "was tuned on .*tiny .*, got .*other .*; load that mo"
    )
    refused(command("search", index, "pink", "--model", other), "other")
    described = json.loads((prompts / "prompt.json").read_text())
    gone = shutil.copytree(prompts, tmp_path / "gone")
    described["base"]["name"] = f"local-dir:{tmp_path / 'nowhere'}"
    (gone / "prompt.json").write_text(json.dumps(sealed(described)))
    refused(
        command("classify", gone, file), r"nowhere is not an open_clip model folder: expected open_clip_config.json"
    )


def test_an_index_under_prompts_in_the_image_tower(
    command: Command, clip_folder: Path, picture_folder: Path, prompts: Path, index: Path, tmp_path: Path
) -> None:
    import numpy as np

    from multimodal.classifier import PromptClassifier
    from multimodal.data.pictures import load_pictures

    vpt = fitted(tmp_path / "vpt", clip_folder, picture_folder, method="vpt")
    done = command("index", picture_folder / "test", "--out", tmp_path / "index", "--prompts", vpt, "--device", "cpu")
    assert done.code == 0 and done.out.endswith(f"--html boats.html --prompts {vpt}\n"), done.err
    search = ["search", tmp_path / "index", "--device", "cpu", "--json", "-", "-k", "1"]
    classifier = PromptClassifier.load(vpt, device="cpu")
    pictures = load_pictures(picture_folder / "test")
    said = classifier.logits(pictures, ["dark green", "blue"]) * classifier.temperature / classifier.clip.scale
    done = command(*search, "dark green.", "--prompts", vpt)  # as class names are written
    assert done.json[0]["id"] == pictures[int(np.argmax(said[:, 0]))].name
    assert done.json[0]["score"] == pytest.approx(said[:, 0].max(), abs=2e-3)  # kept in half precision
    done = command(*search, "--image", pictures[0].place, "--prompts", vpt)
    assert done.json[0]["id"] == pictures[0].name and done.json[0]["score"] == pytest.approx(1, abs=1e-3)
    for options, message in (
        ([], "the pictures of this index have prompts in the image tower: multimodal-prompts search --prompts finds"),
        (["--prompts", prompts], "the pictures of this index have prompts in the image tower"),
        (
            ["--prompts", vpt, "--strength", "0.5"],
            "the index was made with other ones, or at another strength; make one",
        ),
    ):
        refused(command(*search, "dark green", *options), message)
    refused(command("search", index, "pink", "--prompts", vpt, "--device", "cpu"), "the index was made without them")
    refused(
        command("index", picture_folder, "--out", tmp_path / "x", "--prompts", prompts, "--device", "cpu"),
        "does not enter the image tower: leave out --prompts here, and give them to search",
    )
