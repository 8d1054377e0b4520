"""Training on many processes: the first one trains as it would alone, the others encode their share of its texts.

What takes the time of a step is the frozen model, forward and backward. So its texts are dealt out; each process gives
back the vectors of its share and then, for their gradients, that of the prompts. Whatever is made of all vectors (the
loss with its negatives, the optimizer's step, dev scores, files) is made in one place, so a step is the one of a single
process with the whole batch. That representations and their gradients are enough is GradCache (Gao et al. 2021).

The other processes hold the frozen model alone: neither data, nor document vectors, nor an optimizer, and on other
machines they need nothing else. Processes speak through torch.distributed (gloo) in tensors and JSON, never pickle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.training.processes.place import Place
from retrieval_prompts.vectors.encode import embed_texts

WAIT = timedelta(days=30)  # of the others, while the first one encodes a corpus or evaluates
KEPT = 16  # calls whose gradient may still be asked for; a step makes a few


class FirstEnded(UserError):
    """The process that trains is gone, and so is what there was to help with."""


@contextmanager
def sharing(tower: TextTower) -> Iterator[bool]:
    """Share what prompts are trained on in the block over all processes that were launched together.

    Every process enters it with the same frozen model. In the first one the block runs, with True; in the others it is
    reached, with False, when the first has left its own:

        with sharing(biencoder.tower) as first:
            if first:
                tune(biencoder, data, out=folder)

    Without a launcher it does nothing, and is True.

    Raises:
        UserError: where the processes do not find each other, have other models, or one is gone.
    """
    place = Place.here()
    if not place.several:
        yield True
    elif not place.first:
        helping(lambda _: tower)
        yield False
    else:
        with _group(place) as group:
            helpers = _Helpers(group, place, tower)
            tower.shared = helpers.embed
            try:
                yield True
            finally:
                tower.shared = None
                helpers.end()


def helping(load: Callable[[dict[str, Any]], TextTower]) -> None:
    """Encode for the first process until it is done.

    Args:
        load: loads the model: from its "model" (a name), "query_words", "document_words" and "similarity".

    Raises:
        UserError: as `sharing`; FirstEnded where the first process ended before it was done.
    """
    place = Place.here()
    with _group(place) as group, _talking(FirstEnded, "the first process has ended"):
        wanted, _ = group.receive()
        tower = load({name: value for name, value in wanted.items() if name != "fingerprint"})
        if tower.fingerprint != wanted["fingerprint"]:
            raise UserError(f"model {tower.name} has other weights here than in the first process")
        calls: dict[int, tuple[Tensor, Tensor]] = {}
        while (asked := group.receive())[0]["do"] != "end":
            about, tensors = asked
            if not (places := about["shares"][place.rank]):
                continue
            if about["do"] == "gradient":
                own, part = calls.pop(about["call"])
                part.backward(tensors["gradient"][places].to(part.device))
                assert own.grad is not None
                group.give(own.grad)
                continue
            rows = [row.tolist() for row in tensors["ids"].split(about["lengths"])]
            prompt = tensors["prompt"].to(tower.device) if "prompt" in tensors else None
            with torch.autocast(tower.device.type, torch.bfloat16, enabled=about["bfloat16"]):
                leaf, part = _own(tower, about, rows, prompt, places)
            if about["learns"]:
                assert leaf is not None
                calls[about["call"]] = leaf, part
                calls.pop(about["call"] - KEPT, None)
            group.give(part.detach())


def shares(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Which texts each of so many processes takes: dealt out by length, so that all have as much to do; the first one,
    which does all the rest, gets no more than the others."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    return [order[count - 1 - rank :: count] for rank in range(count)]


def _own(
    tower: TextTower, about: dict[str, Any], rows: Sequence[list[int]], prompt: Tensor | None, places: list[int]
) -> tuple[Tensor | None, Tensor]:
    """This process's copy of the prompt, and the vectors of its share of the texts made with it."""
    leaf = prompt
    if prompt is not None:
        leaf = (prompt[places] if prompt.dim() == 4 else prompt).detach().requires_grad_(about["learns"])
    with torch.set_grad_enabled(about["learns"]):
        chosen = [rows[place] for place in places]
        return leaf, embed_texts(tower, chosen, about["side"], about["kind"], leaf, saving=about["saving"])


class _Helpers:
    """The other processes, as the first one asks them."""

    def __init__(self, group: _Group, place: Place, tower: TextTower) -> None:
        self.group, self.count, self.calls = group, place.count, 0
        self.asking = False  # an answer is still awaited
        wanted = {"model": tower.name, "fingerprint": tower.fingerprint, **asdict(tower.conventions)}
        with self.asking_them():
            group.send(wanted, {})

    def end(self) -> None:
        """Let the others go; where an answer is awaited, they see that this process is gone."""
        if not self.asking:
            with suppress(RuntimeError):  # one that is gone needs no word
                self.group.send({"do": "end"}, {})

    def embed(
        self,
        tower: TextTower,
        ids: Sequence[list[int]],
        side: str,
        kind: str,
        vectors: Tensor | None,
        *,
        saving: bool = False,
    ) -> Tensor:
        """As `vectors.encode.embed_texts`, over all processes."""
        learns = vectors is not None and torch.is_grad_enabled() and vectors.requires_grad
        about: dict[str, Any] = {"do": "embed", "side": side, "kind": kind, "saving": saving, "learns": learns}
        about |= {
            "call": self.calls,
            "lengths": [len(row) for row in ids],
            "bfloat16": torch.is_autocast_enabled(tower.device.type),
        }
        about["shares"] = shares(about["lengths"], self.count)
        self.calls += 1
        asked = _Call(self, tower, about, ids)
        return _Shared.apply(vectors, asked) if learns else asked.forward(vectors)

    @contextmanager
    def asking_them(self) -> Iterator[None]:
        """An exchange: a question to all, and their answers."""
        self.asking = True
        with _talking(UserError, "another process of this training has ended, by an error of its own or from outside"):
            yield
        self.asking = False


class _Call:
    """One batch of texts that is encoded by all processes, and the gradient of its prompts."""

    def __init__(self, helpers: _Helpers, tower: TextTower, about: dict[str, Any], ids: Sequence[list[int]]) -> None:
        self.helpers, self.tower, self.about, self.ids = helpers, tower, about, ids
        self.shares: list[list[int]] = about["shares"]
        self.leaf: Tensor | None = None
        self.part: Tensor | None = None

    def forward(self, prompt: Tensor | None) -> Tensor:
        tokens = torch.tensor([token for row in self.ids for token in row], dtype=torch.int64)
        tensors = {"ids": tokens} | ({"prompt": prompt.detach()} if prompt is not None else {})
        group, tower, places = self.helpers.group, self.tower, self.shares[0]
        with self.helpers.asking_them():
            group.send(self.about, tensors)
            leaf, part = _own(tower, self.about, self.ids, prompt, places)
            found = part.new_empty((len(self.ids), tower.dimension))
            found[places] = part.detach()
            for rank, others in enumerate(self.shares):
                if rank and others:
                    found[others] = group.take(rank, (len(others), tower.dimension), part.dtype).to(found.device)
        if self.about["learns"]:
            self.leaf, self.part = leaf, part
        return found

    def backward(self, gradient: Tensor) -> Tensor:
        group, leaf, part = self.helpers.group, self.leaf, self.part
        assert leaf is not None and part is not None
        each = leaf.shape[1:] if leaf.dim() == 4 else None  # of a prompt of its own for each text
        with self.helpers.asking_them():
            group.send({**self.about, "do": "gradient"}, {"gradient": gradient})
            if self.shares[0]:
                part.backward(gradient[self.shares[0]])
            own = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            total = own if each is None else own.new_zeros((len(self.ids), *each))
            if each is not None:
                total[self.shares[0]] = own
            for rank, others in enumerate(self.shares):
                if rank and others and each is None:
                    total = total + group.take(rank, leaf.shape, leaf.dtype).to(total.device)
                elif rank and others and each is not None:
                    total[others] = group.take(rank, (len(others), *each), leaf.dtype).to(total.device)
        return total


class _Shared(torch.autograd.Function):
    """Prompt -> vectors of all texts, as a node of the graph."""

    @staticmethod
    def forward(ctx: Any, prompt: Tensor, call: _Call) -> Tensor:
        ctx.call = call
        return call.forward(prompt)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.call.backward(gradients[0].contiguous()), None


class _Group:
    """What is said between the processes: the first one to all others, in safetensors' form, and each of them to it, in
    tensors whose shape it knows."""

    def __init__(self, group: Any, place: Place) -> None:
        self.group, self.place = group, place

    def send(self, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        from safetensors.torch import save
        from torch import distributed

        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        message = torch.frombuffer(bytearray(save(plain, {"about": json.dumps(about)})), dtype=torch.uint8)
        distributed.broadcast(torch.tensor([len(message)]), 0, group=self.group)
        distributed.broadcast(message, 0, group=self.group)

    def receive(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        from safetensors.torch import load
        from torch import distributed

        size = torch.zeros(1, dtype=torch.int64)
        distributed.broadcast(size, 0, group=self.group)
        message = torch.zeros(int(size), dtype=torch.uint8)
        distributed.broadcast(message, 0, group=self.group)
        content = message.numpy().tobytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return json.loads(header["__metadata__"]["about"]), load(content)

    def give(self, tensor: Tensor) -> None:
        from torch import distributed

        distributed.send(tensor.detach().cpu().contiguous(), 0, group=self.group)

    def take(self, rank: int, shape: Sequence[int], kind: torch.dtype) -> Tensor:
        from torch import distributed

        found = torch.empty(tuple(shape), dtype=kind)
        distributed.recv(found, rank, group=self.group)
        return found


@contextmanager
def _group(place: Place) -> Iterator[_Group]:
    """The processes of this launch; those of a script that has brought them together itself are taken as they are."""
    from torch import distributed

    mine = not distributed.is_initialized()
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    lost = f"the {place.count} processes of this training did not find each other at {where} (MASTER_ADDR, MASTER_PORT)"
    with _talking(UserError, lost):
        if mine:
            distributed.init_process_group("gloo", rank=place.rank, world_size=place.count)
        group = distributed.new_group(backend="gloo", timeout=WAIT)
    try:
        yield _Group(group, place)
    finally:
        if mine:
            distributed.destroy_process_group()


@contextmanager
def _talking(error: type[UserError], happened: str) -> Iterator[None]:
    """What torch.distributed raises, which is of many kinds, in one line."""
    from torch.distributed import DistError

    try:
        yield
    except (DistError, RuntimeError) as raised:
        text = str(raised).lower()
        if not any(sign in text for sign in ("gloo", "connection", "socket", "timed out", "timeout", "address")):
            raise
        raise error(f"{happened}; the same command goes on from where it was") from raised
