"""What is refused, in one line."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import tiny_clip
import torch
from command_line import Command
from image_commands import QUICK, refused

from retrieval_prompts.prompts.folder import PromptFolder, save_prompts


def test_outputs_that_exist_are_refused(
    command: Command, clip_folder: Path, picture_folder: Path, caption_folder: Path, prompts: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    (tmp_path / "file").write_text("mine")
    model = ["--model", clip_folder]
    exists, file = r"out exists already; choose another name or pass --overwrite", r"file exists already"
    for data in (picture_folder, caption_folder / "captions.csv"):
        refused(command("tune", data, "--out", tmp_path / "out", *model), exists)
        refused(command("tune", data, "--out", tmp_path / "new", "--json", tmp_path / "file", *model), file)
    refused(command("index", picture_folder, "--out", tmp_path / "out", *model), exists)
    refused(command("export", prompts, "--out", tmp_path / "out"), exists)
    refused(command("evaluate", picture_folder, "--json", tmp_path / "file", *model), file)
    not_ours = r"out is not replaced, as it is something else: it holds no (prompt|manifest|classes).json"
    refused(command("tune", picture_folder, "--out", tmp_path / "out", "--overwrite", *model), not_ours)
    refused(command("index", picture_folder, "--out", tmp_path / "out", "--overwrite", *model), not_ours)
    refused(command("export", prompts, "--out", tmp_path / "out", "--overwrite"), not_ours)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]
    assert (tmp_path / "file").read_text() == "mine" and [path.name for path in (tmp_path / "out").iterdir()] == [
        "mine"
    ]


TUNE = "tune PICTURES --out NEW --shots 2 --model MODEL"


CAPTIONS = "CAPTIONS/captions.csv"


BLUE = "PICTURES/test/blue/0.png"


TEXTS_GIVEN = "TEXTS/prompt.json: expected prompts for CLIP, got prompts for texts; use retrieval-prompts"


MISTAKES = [
    ("tune NOWHERE --out NEW", "NOWHERE does not exist; expected an image folder"),
    ("tune NOWHERE.jsonl --out NEW", "NOWHERE.jsonl is not a file; expected captions"),
    ("tune ONE --out NEW --model MODEL", "ONE has the class 'cat' only; expected two classes or more"),
    ("tune TWICE --out NEW --model MODEL", "TWICE.*A_cat"),
    ("tune EMPTY --out NEW --model MODEL", r"EMPTY/cat has no pictures; expected files that end in"),
    ("tune LONG --out NEW --model MODEL --shots 1", "the class name 'very very .*' has 32 tokens; 14 fit beside 4 con"),
    (f"{TUNE} --shots 0", "--shots must be a number from 1, or all, got '0'"),
    (f"{TUNE} --shots -3", "--shots must be a number from 1, or all, got '-3'"),
    (f"{TUNE} --shots some", "--shots must be a number from 1, or all, got 'some'"),
    (f"{TUNE} --method copo", "--method must be coop, cocoop, .* or auto, got 'copo'"),
    (f"{TUNE} --subset old", "--subset must be all, base or new, got 'old'"),
    (f"{TUNE} --epochs 0", "--epochs must be 1 or more, got 0"),
    (f"{TUNE} --lr 0", r"--lr must be above 0 and at most 1e\+06, got 0"),
    (f"{TUNE} --batch-size 0", "--batch-size must be 1 or more, got 0"),
    (f"{TUNE} --views 300", "expected from 1 to 256 views, got 300"),
    (f"{TUNE} --context 18", "a context of 18 vectors leaves no room for a name in 20 positions"),
    (f"{TUNE} --init ' '", '--init .* has no words; write --init "a photo of a" or --init gaussian'),
    (f"{TUNE} --position behind", "--position must be end, middle or front"),
    (f"{TUNE} --template 'a photo'", "expected a template with one {} for the class name"),
    (f"{TUNE} --class-file NOWHERE", "NOWHERE does not exist"),
    (f"{TUNE} --images PICTURES", "--images is the folder of a caption file's images; leave it out"),
    (
        f"{TUNE} --method tcp --class-specific",
        "--class-specific is used with --method coop, .* not with --method tcp",
    ),
    (f"{TUNE} --pretrained openai", "has its own weights; leave out --pretrained openai"),
    (f"{TUNE} --device abacus", "could not be loaded by open_clip: .*abacus"),
    ("tune PICTURES --out NEW --model NOWHERE", "there is no model NOWHERE: expected a folder, hf-hub:NAME"),
    (
        "tune PICTURES --out NEW --model PICTURES",
        "PICTURES is not an open_clip model folder: expected open_clip_config.js",
    ),
    ("tune PICTURES --out NEW --model ViT-B-32", "model ViT-B-32 needs --pretrained: a checkpoint file, or one of"),
    (f"tune {CAPTIONS} --out NEW --subset base", "captions have no classes; leave out --subset"),
    (
        f"tune {CAPTIONS} --out NEW --model MODEL --method kgcoop",
        "the method kgcoop does not go with; use coop, deep or feedback",
    ),
    (f"classify NOWHERE {BLUE}", "NOWHERE is not a prompt folder: expected prompt.safetensors and prompt.json in it"),
    (f"classify TEXTS {BLUE}", TEXTS_GIVEN),
    (f"classify WORDS {BLUE}", "these prompts were tuned on captions and have no classes of their own; give --classes"),
    ("classify PROMPTS NOWHERE", "NOWHERE does not exist; expected a picture or a folder of pictures"),
    ("classify PROMPTS TEXTS", "no picture found in TEXTS; expected files that end in"),
    (f"classify PROMPTS {BLUE} --classes ''", "--classes '' has an empty name; write --classes cat,dog,horse"),
    (f"classify PROMPTS {BLUE} --classes cat,,dog", "--classes 'cat,,dog' has an empty name"),
    (f"classify PROMPTS {BLUE} --classes cat,dog,Cat", "class names must differ, got 'cat' and 'Cat'; rename one"),
    (
        f"classify PROMPTS {BLUE} --classes 'cat,{'o ' * 30}'",
        "the class name 'o o .*; shorten the name or use a shorter",
    ),
    (f"classify PROMPTS {BLUE} --classes a,b --class-file x", "give either --classes or --class-file, not both"),
    (
        f"classify PROMPTS {BLUE} --strength 2",
        r"strength must be from 0 .* to 1 .*, got 2.0",
    ),
    ("evaluate NOWHERE --model MODEL", "NOWHERE does not exist; expected an image folder"),
    ("evaluate PICTURES --prompts TEXTS", TEXTS_GIVEN),
    ("evaluate PICTURES --model MODEL --protocol zero", "there is no protocol 'zero'; the protocols are few-shot, bas"),
    ("evaluate PICTURES --model MODEL --protocol retrieval", "PICTURES has no captions; expected Karpathy JSON, JSONL"),
    ("evaluate PICTURES --model MODEL --split val", "has no split 'val'; it has train, test"),
    ("evaluate PICTURES --model MODEL --strength 1", "--strength applies to prompts; pass --prompts as well"),
    (
        f"evaluate {CAPTIONS} --model MODEL --protocol few-shot",
        "has captions: expected --protocol retrieval, got few-s",
    ),
    (f"evaluate {CAPTIONS} --prompts WORDS --prompts WORDS", "retrieval evaluates one prompt folder at a time, got 2"),
    (f"evaluate {CAPTIONS} --prompts TEXTS", TEXTS_GIVEN),
    (f"evaluate {CAPTIONS} --source PICTURES", "captions have no classes; leave out --source"),
    ("index NOWHERE --out NEW --model MODEL", "NOWHERE does not exist; expected a picture or a folder of pictures"),
    ("index PICTURES --out NEW --model MODEL --factory Round", "Round"),
    ("search INDEX", "give either words to look for, or --image"),
    (f"search INDEX a --image {BLUE}", "give either words to look for, or --image"),
    ("search INDEX ' '", "the query is empty; write what you look for in quotes"),
    ("search INDEX a --strength 0.5", "--strength applies to prompts; pass --prompts as well"),
    (f"search INDEX --image {BLUE} --prompts WORDS", "--prompts apply to words; a search by image takes none"),
    ("search INDEX --image NOWHERE", "NOWHERE does not exist"),
    ("search INDEX --image PICTURES", "PICTURES is a folder; --image expects one picture"),
    ("search NOWHERE a", "NOWHERE"),
    ("search INDEX a --prompts TEXTS", TEXTS_GIVEN),
    ("export NOWHERE --out NEW", "NOWHERE is not a prompt folder"),
    ("export TEXTS --out NEW", TEXTS_GIVEN),
    ("export WORDS --out NEW", "these prompts were tuned on captions and have no classes of their own; give --classes"),
    ("export PROMPTS --out NEW --classes a --class-file x", "give either --classes or --class-file, not both"),
]


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory,
    clip_folder: Path,
    picture_folder: Path,
    caption_folder: Path,
    prompts: Path,
    caption_prompts: Path,
    index: Path,
) -> Path:
    """A folder with all that a mistake can be made with."""
    desk = tmp_path_factory.mktemp("desk")
    there = {"PICTURES": picture_folder, "CAPTIONS": caption_folder, "MODEL": clip_folder}
    for name, folder in {**there, "PROMPTS": prompts, "WORDS": caption_prompts, "INDEX": index}.items():
        (desk / name).symlink_to(folder)
    for name in ("ONE/cat", "TWICE/a cat", "TWICE/A_cat", "LONG/cat", "LONG/" + "very " * 30 + "long"):
        for number in range(2):
            tiny_clip.write_picture(desk / name / f"{number}.png", "blue", number)
    for name in ("cat", "dog"):
        (desk / "EMPTY" / name).mkdir(parents=True)
    base = {"name": "bert", "fingerprint": "0" * 64, "dimension": 4, "width": 4}
    save_prompts(desk / "TEXTS", PromptFolder("input", {"query": torch.ones(1, 2, 4)}, base))
    return desk


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line[:70] for line, _ in MISTAKES])
def test_a_mistake_is_one_line(
    command: Command, desk: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(desk)
    before = sorted(path.name for path in desk.iterdir())
    refused(command(*shlex.split(line)), message)
    assert sorted(path.name for path in desk.iterdir()) == before, "nothing is written"


def test_what_the_system_refuses_is_one_line(
    command: Command, clip_folder: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retrieval_prompts.prompts.folder.write_bytes", fail)
    tune = ["tune", picture_folder, "--model", clip_folder, "--out", tmp_path / "out", "--shots", "1", *QUICK]
    refused(command(*tune), "No space left on device")
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"], "the work is not lost"
