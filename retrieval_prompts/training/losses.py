"""The contrastive loss, and that against a teacher. Take scores, return a number, know no model, side or device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(scores: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Softmax cross-entropy of each positive against all negatives (InfoNCE, van den Oord et al. 2018, eq. 4).

    With several positives a query, each one is compared with the negatives alone, never with another positive
    (the `out` form of Khosla et al. 2020, eq. 2, without the positives in its denominator):

        loss = mean over queries, mean over positives p of  log(1 + sum over negatives n of exp((s_n - s_p) / T))

    Args:
        scores: (queries, candidates) similarities.
        positive: (queries, candidates) booleans, from the judgements: whatever is relevant is a positive wherever
            it came from, so that another query's document is never a false negative. Rows without a positive
            do not count.
        temperature: T > 0.

    Returns a scalar; zero where there is nothing to compare.
    """
    logits = scores / temperature
    # A finite filler keeps the gradient of a row without negatives at zero instead of NaN
    filler = torch.finfo(logits.dtype).min / 2
    negatives = logits.masked_fill(positive, filler).logsumexp(dim=1, keepdim=True)  # (queries, 1)
    count = positive.sum(dim=1)
    per_query = (functional.softplus(negatives - logits) * positive).sum(dim=1) / count.clamp(min=1)
    return per_query.sum() / (count > 0).sum().clamp(min=1)


def symmetric_info_nce(scores: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """The mean of both directions, queries to candidates and candidates to queries (CLIP, Radford et al. 2021)."""
    return (info_nce(scores, positive, temperature) + info_nce(scores.T, positive.T, temperature)) / 2


def distillation(scores: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the softmax over documents against a teacher's: the listwise KL divergence, but for a constant
    (ListNet, Cao et al. 2007, with the top-one probability).

    Args:
        scores: (queries, candidates) similarities.
        taught: (queries, candidates) probabilities; each row sums to 1, or to 0 where nothing is taught.
        temperature: T > 0, of the student alone.

    Returns a scalar, the mean over queries.
    """
    return -(taught * (scores / temperature).log_softmax(dim=1)).sum(dim=1).mean()


def next_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the tokens to come, the language-model loss: its exponential is the perplexity.

    Args:
        logits: (batch, tokens, vocabulary).
        targets: (batch, tokens) token ids; -100 (`towers.language.IGNORED`) is none and does not count.

    Returns a scalar, the mean over the tokens that count; zero where there is none.
    """
    count = (targets >= 0).sum().clamp(min=1)
    per_token = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    return per_token / count
