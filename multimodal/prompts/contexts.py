"""What enters the towers in one step (Prompts), and the classes that it enters beside (Classes). Knows no method."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.data.class_files import check_names
from multimodal.data.images import same_name
from multimodal.data.templates import fill
from retrieval_prompts.errors import DataWarning, UserError, few
from retrieval_prompts.prompts.encoders import CHANGING

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip

Layer = tuple[Tensor, Tensor]  # weight and bias


@dataclass(frozen=True)
class Prompts:
    """The vectors that a prompter makes.

    Args:
        context: (M, width), one for all classes; (C, M, width), each class its own; or, with `per_image`,
            (B, M, width), each image its own.
        deep: text layer (from 1) -> (M, width) or (C, M, width), which takes the context's place before that layer;
            without a context, M of 0, any number of vectors, which stand before all words from that layer on.
        visual: image layer (from 0) -> (V, visual width): layer 0's are appended to the image's tokens, deeper ones
            take their place before that layer.
        per_image: the context depends on the image.
        project: two layers, with ReLU between them, that the image's features go through before they are compared;
            none: they stay as they are.
        texts: class names -> (C, D'), the class vectors of another model, to which such features are compared; None:
            the text tower's.
        last: (visual width, D), the projection of what becomes of the image's rows after the last layer, which answers
            for classes of the training beside the image's own features; None: they do not.
        own: the share that the image's own features have then.
    """

    context: Tensor
    deep: Mapping[int, Tensor] = field(default_factory=dict)
    visual: Mapping[int, Tensor] = field(default_factory=dict)
    per_image: bool = False
    project: tuple[Layer, ...] = ()
    texts: Callable[[Sequence[str]], Tensor] | None = None
    last: Tensor | None = None
    own: float = 1.0

    @property
    def text_is_frozen(self) -> bool:
        """The text side has nothing to train, so its features are computed once."""
        return not self.per_image and not any(part.requires_grad for part in (self.context, *self.deep.values()))


@torch.no_grad()
def still(prompter: nn.Module, classes: Any, images: Tensor) -> Prompts:
    """What a prompter makes, of one moment: copies, which a training in another thread does not change."""
    with CHANGING:
        made: Prompts = prompter(classes, images)
        deep, visual = ({layer: part.clone() for layer, part in each.items()} for each in (made.deep, made.visual))
        project = tuple((weight.clone(), bias.clone()) for weight, bias in made.project)
        last = None if made.last is None else made.last.clone()
        return replace(made, context=made.context.clone(), deep=deep, visual=visual, project=project, last=last)


class Classes:
    """Class names, their token rows with room for a context, and what the frozen text tower makes of them.

    Args:
        names: as the data has them; underscores become spaces where they are written into a prompt.

    Raises:
        UserError: for no names, an empty or repeated name, one that is an id of WordNet, one that does not fit beside
            the context, and two that the model reads as the same tokens.
    """

    def __init__(self, clip: Clip, names: Sequence[str], settings: PromptSettings) -> None:
        self.clip = clip
        self.names = tuple(names)
        self.template = settings.template
        words = [fill("{}", name) for name in self.names]
        if not words:
            raise UserError("expected at least one class name, got none")
        if "" in words:
            raise UserError(f"class name {words.index('') + 1} of {len(words)} is empty; name every class")
        check_names(self.names)
        alike: dict[str, int] = {}
        for number, name in enumerate(self.names):
            if (first := alike.setdefault(same_name(name), number)) != number:
                raise UserError(f"class names must differ, got {self.names[first]!r} and {name!r}; rename one")
        before, _, behind = settings.frame.partition("{}")
        framed = [before + word for word in words]
        self.rows = clip.text.rows(framed, settings.slots, settings.position, behind)
        _check_words(self.names, self.rows.ids, clip.text.tokens.unknown)
        self._published = settings.recipe == "paper"

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def frozen(self) -> Tensor:
        """(C, D) of unit length: each name in the hand-written template, read by the frozen tower."""
        return self._plain([fill(self.template, name) for name in self.names])

    @cached_property
    def ensemble(self) -> Tensor:
        """(C, D) of unit length: the mean over many templates' unit-length features (Radford et al. 2021, 3.1.4).

        With the recipe "paper" as PromptSRC's authors have it: over 60 of the 80, of the features as they are.
        """
        from multimodal.data import templates

        if self._published:
            texts = [[fill(template, name) for template in templates.SIXTY] for name in self.names]
            return F.normalize(torch.stack([self._raw(each).mean(dim=0) for each in texts]), dim=-1)
        means = [
            self._plain([fill(template, name) for template in templates.ENSEMBLE]).mean(dim=0) for name in self.names
        ]
        return F.normalize(torch.stack(means), dim=-1)

    def features(self, prompts: Prompts) -> Tensor:
        """The classes under `prompts` -> (C, D), or (B, C, D) where prompts depend on the image; of unit length."""
        text = self.clip.text
        if prompts.texts is not None:
            return prompts.texts(self.names)
        if prompts.per_image:
            return F.normalize(text.encode_per_image(self.rows, prompts.context).float(), dim=-1)
        return F.normalize(text.encode(self.rows, prompts.context, prompts.deep).float(), dim=-1)

    @torch.no_grad()
    def _raw(self, texts: Sequence[str]) -> Tensor:
        """Not normalised."""
        with torch.autocast(self.clip.device.type, enabled=False):
            return self.clip.text.plain(texts).float()

    def _plain(self, texts: Sequence[str]) -> Tensor:
        with torch.autocast(self.clip.device.type, enabled=False):  # a step in half precision may be the first to ask
            return self.clip.encode_texts(texts)


def _check_words(names: Sequence[str], ids: Sequence[Sequence[int]], unknown: int | None) -> None:
    """Warn of names with words that the model's vocabulary lacks. Raises UserError for two that it reads as one."""
    rows: dict[Sequence[int], int] = {}
    for number, row in enumerate(ids):
        if (first := rows.setdefault(row, number)) != number:
            lacking = ", for its vocabulary lacks them" if unknown is not None and unknown in row else ""
            raise UserError(
                f"the model reads the class names {names[first]!r} and {names[number]!r} as the same tokens{lacking};"
                " give them other words, such as English ones, with --class-file"
            )
    if strange := [name for name, row in zip(names, ids, strict=True) if unknown is not None and unknown in row]:
        message = f"{len(strange)} of {len(names)} class names have words that the model does not know: {few(strange)}"
        warnings.warn(f"{message}; --class-file gives them others", DataWarning, stacklevel=1)


def logits(scale: float, images: Tensor, text: Tensor) -> Tensor:
    """scale * cosines (B, C) of images (B, D) and class texts (C, D), or (B, C, D), each image its own."""
    if text.dim() == 3:
        return scale * (text @ images[:, :, None].to(text.dtype))[:, :, 0].float()
    return scale * images.float() @ text.float().T


def hidden(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(W x + b) of features (n, D) of unit length, brought to a mean square of 1."""
    return F.linear(images * images.shape[-1] ** 0.5, weight, bias).relu()


def projected(images: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Features (n, D) of unit length through `Prompts.project` -> (n, D') of unit length."""
    if not layers:
        return images
    first, second = layers
    return F.normalize(F.linear(hidden(images, *first), *second).float(), dim=-1)


def initial_context(clip: Clip, init: str, length: int, seed: int) -> Tensor:
    """Initial context vectors (length, width) in float32 on the model's device.

    Args:
        init: "gaussian" (mean and standard deviation of the embedding table), "gaussian:0.02" (around zero, with this
            deviation) or words such as "a photo of a" ("text:" may stand before them): the rows of their tokens,
            repeated before them or cut at the front to `length`, so that the last vector is that of the last word.
            With "zeros:" before the words there are zeros before them.

    Raises:
        UserError: for words without tokens, and a deviation that is none.
    """
    kind, _, rest = init.partition(":")
    if kind == "gaussian":
        table = clip.text.embeddings.weight.float()
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(length, clip.text.width, generator=generator).to(table.device)
        return _deviation(init, rest) * noise if rest else table.mean(dim=0) + table.std(dim=0) * noise
    tokens = clip.text.tokens.of(rest if kind in ("text", "zeros") else init)
    if not tokens:
        raise UserError(f'--init {init!r} has no words; write --init "a photo of a" or --init gaussian')
    if kind == "zeros":
        rows = clip.text.token_rows(tokens[-length:])
        return torch.cat([rows.new_zeros(length - len(rows), rows.shape[1]), rows])
    repeated = tokens * (length // len(tokens) + 1)
    return clip.text.token_rows(repeated[len(repeated) - length :]).clone()


def _deviation(init: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"--init {init!r}: expected a number above 0 behind gaussian:, as in gaussian:0.02")
    return value
