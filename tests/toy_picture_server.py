"""A tiny index of pictures with prompts of each kind, and servers over it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_clip
import torch

from multimodal.classifier import PromptClassifier
from multimodal.data.pictures import load_pictures
from multimodal.prompts.contexts import Classes
from multimodal.prompts.methods import method
from multimodal.serving.asked import PictureLimits
from multimodal.serving.served import PictureShelf
from multimodal.serving.web import PictureWeb
from multimodal.towers.clip import Clip
from multimodal.training.settings import Settings
from multimodal.vectors.image_index import ImageIndex, build_index

NAMES = ("coop", "half", "captions", "feedback", "cocoop", "vpt", "specific", "head")


@dataclass(frozen=True)
class Home:
    """A folder with pictures/, index/ and prompts/NAME, and the model."""

    folder: Path
    clip: Clip

    def web(self, *names: str, limits: PictureLimits | None = None, index: str = "index", **given: Any) -> PictureWeb:
        """The application with some of the prompts loaded."""
        prompts = {name: self.folder / "prompts" / name for name in names}
        opened = ImageIndex.open(self.folder / index)
        shelf = PictureShelf(opened, self.clip, prompts, self.folder / "prompts")
        return PictureWeb(shelf, limits or PictureLimits(body=1 << 20), **given)

    def prompts(self, name: str | None, strength: float | None = None) -> PromptClassifier:
        return PromptClassifier.load(self.folder / "prompts" / str(name), self.clip, strength=strength)

    def picture(self, name: str) -> Path:
        return self.folder / "pictures" / f"{name}.png"


def sent(content: bytes | Path) -> str:
    """A picture as a request holds it."""
    return base64.b64encode(content.read_bytes() if isinstance(content, Path) else content).decode()


def save_prompts(clip: Clip, folder: Path, classes: tuple[str, ...] = tiny_clip.NAMES, **given: Any) -> None:
    """An untrained prompt, far from the frozen model."""
    strength = given.pop("strength", 1.0)
    settings = Settings.of(**{"init": "gaussian", "head": "none", **given})
    made = PromptClassifier(clip, settings)
    made.use(method(settings.method).build(clip, settings, len(classes) or None), Classes(clip, ("a",), settings))
    if settings.method == "feedback":  # which starts at the frozen model
        for number, parameter in enumerate(made.method.prompter.parameters()):
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.data.add_(drawn.to(parameter.device))
    made.classes, made.strength, made.temperature = classes, strength, 1.5
    made.save(folder)


def write_home(folder: Path, clip: Clip) -> Home:
    """pictures, which index/ is of, with a text each; prompts/NAME."""
    tiny_clip.write_captions(folder)
    pictures = load_pictures(folder / "pictures")
    texts = {each.name: f"a picture, {each.name}" for each in pictures}
    build_index(clip, pictures, root=folder / "pictures", texts=texts).save(folder / "index")
    prompts = folder / "prompts"
    save_prompts(clip, prompts / "coop")
    save_prompts(clip, prompts / "half", method="deep", depth=2, strength=0.5)
    save_prompts(clip, prompts / "captions", ())
    save_prompts(clip, prompts / "feedback", (), method="feedback", feedback=2)
    save_prompts(clip, prompts / "cocoop", method="cocoop")
    save_prompts(clip, prompts / "vpt", method="vpt", depth=2, visual=2, init="a photo of a")
    save_prompts(clip, prompts / "specific", class_specific=True)
    labels = [name for name in tiny_clip.NAMES for _ in range(3)]
    paths = [folder / "pictures" / f"{name}{number}.png" for name in tiny_clip.NAMES for number in range(3)]
    settings = Settings.of(epochs=1, shots=None, head="gda", calibrate=False)
    PromptClassifier(clip, settings).fit(paths, labels).save(prompts / "head")
    return Home(folder, clip)
