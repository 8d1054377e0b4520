"""CLIP-LoRA (Zanella and Ben Ayed 2024, Low-Rank Few-Shot Adaptation of Vision-Language Models): what few shots give
where both towers may be changed. By peft, on a copy that shares no tensor with the frozen model.

    W' = W + α / √r · B A,    W the queries', keys' and values' matrices of each block    loss = cross-entropy

Trained are all A and B; the text is the template's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.experiments.adapting import Crops, descend, said
from multimodal.prompts.methods.parts import seeded
from multimodal.towers.clip import Clip
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.data.pictures import Picture

# As published, and in the authors' code, which scales by the root of the rank
RANK, ALPHA, DROPOUT = 2, 1, 0.25
STEPS = 500  # a shot
PROJECTIONS = ["q_proj", "k_proj", "v_proj"]
WHOLE = nn.MultiheadAttention


def fit(
    clip: Clip,
    pictures: Sequence[Picture],
    labels: NDArray[np.int64],
    texts: Sequence[str],
    *,
    seed: int = 1,
    steps: int | None = None,
) -> Clip:
    """An adapted copy of the model.

    Args:
        labels: (n,) positions in `texts`.
        texts: (C,) the classes' names in a template.
        steps: None: 500 for each shot of a class.

    Raises:
        UserError: when peft is missing, or a tower is not open_clip's own.
    """
    adapted = inject(clip, seed)
    learned = [each for each in adapted.model.parameters() if each.requires_grad]
    crops = Crops(clip, pictures, labels)
    batches = crops.batches(STEPS * int(np.bincount(labels).max()) if steps is None else steps, seed)
    for name, module in adapted.model.named_modules():
        if "lora_dropout" in name:
            module.train()
    descend(learned, batches, lambda batch: loss(adapted, texts, *crops.of(batch)), "clip-lora", seed)
    adapted.model.eval()
    return adapted


def loss(adapted: Clip, texts: Sequence[str], images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of images (b, 3, H, W) and labels (b,) among texts (C,)."""
    text = F.normalize(adapted.text.plain(texts).float(), dim=-1)
    return F.cross_entropy(adapted.scale * adapted.encode_images(images) @ text.T, labels)


def logits(adapted: Clip, pictures: Sequence[Picture], texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, C) of pictures, encoded now, and the classes' names in a template."""
    return said(adapted, pictures, adapted.encode_texts(texts), "clip-lora")


def inject(clip: Clip, seed: int) -> Clip:
    """A copy with LoRA in both towers, its only parameters that ask for gradients; at first it changes nothing.

    Raises:
        UserError: when peft is missing, or a tower is not open_clip's own.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError('clip-lora needs peft: pip install "retrieval-prompts[lora]"') from None

    model = copy.deepcopy(clip.model)
    blocks = {name: each for name, each in model.named_modules() if ".resblocks." in f".{name}"}
    found = {name: each for name, each in blocks.items() if isinstance(getattr(each, "attn", None), WHOLE)}
    for tower, visual in (("image", True), ("text", False)):
        if not any(name.startswith("visual.") == visual for name in found):
            raise UserError(
                f"clip-lora adapts the attention of open_clip's own transformers, and the {tower} tower of {clip.name} "
                "is another; leave it out, or choose another model, such as ViT-B-32"
            )
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, use_rslora=True, lora_dropout=DROPOUT, target_modules=PROJECTIONS)
    with seeded(seed):
        for block in found.values():
            block.attn = Attention(block.attn)
        made = Clip(model, clip.preprocess, clip.tokenizer, clip.name, clip.pretrained)
        inject_adapter_in_model(config, made.model)
    return made


class Attention(nn.Module):
    """What torch's MultiheadAttention computes of (B, L, width), with queries, keys and values as layers of their own,
    for peft to find."""

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, self.batch_first = whole.num_heads, whole.batch_first
        weights: Any = whole.in_proj_weight.chunk(3)
        biases: Any = whole.in_proj_bias.chunk(3) if whole.in_proj_bias is not None else (None,) * 3
        self.q_proj, self.k_proj, self.v_proj = (_linear(*both) for both in zip(weights, biases, strict=True))
        self.out_proj = whole.out_proj

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        if not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        B, L, width = query.shape
        q, k, v = (
            project(each).view(B, each.shape[1], self.heads, -1).transpose(1, 2)  # (B, heads, L, width / heads)
            for project, each in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.view(B, self.heads, L, -1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask).transpose(1, 2).reshape(B, L, width)
        out = self.out_proj(mixed)
        return (out if self.batch_first else out.transpose(0, 1)), None


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device)
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return made
