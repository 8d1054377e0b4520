"""A tokenizer that any number of threads may call: it answers one call at a time.

A fast tokenizer of transformers keeps truncation and padding as state of its own and sets both in each call, so that
two calls at once cut each other's texts, without an error. The guard is in the tokenizer itself, because a tower is not
alone with it: sentence-transformers, open_clip and the user call the same object.
"""

from __future__ import annotations

from functools import cache
from threading import RLock
from typing import Any, TypeVar

Tokenizer = TypeVar("Tokenizer")
LOCK = "_one_call_at_a_time"


def guard(tokenizer: Tokenizer) -> Tokenizer:
    """The same object, guarded from now on; what is no tokenizer of transformers is left as it is.

    It is of a class of the same name that inherits from its own; copies and pickles are guarded too.
    """
    if hasattr(tokenizer, "_encode_plus") and not isinstance(tokenizer, OneCallAtATime):
        tokenizer.__dict__[LOCK] = RLock()
        tokenizer.__class__ = _guarded(type(tokenizer))  # type: ignore[arg-type]
    return tokenizer


def choose_padding(tokenizer: Any) -> None:
    """Where a tokenizer has no padding token, as those of many decoders, an existing token becomes it.

    No vector changes: what is padded is masked, and no token is added to the vocabulary.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = _special(tokenizer) or tokenizer.convert_ids_to_tokens(0)


def stand_in(tokenizer: Any) -> int:
    """The token of a text without any: an empty one, where a tokenizer adds no special tokens."""
    return int(tokenizer.convert_tokens_to_ids(_special(tokenizer) or tokenizer.pad_token))


def _special(tokenizer: Any) -> str | None:
    names = ("eos_token", "unk_token", "sep_token", "cls_token", "bos_token")
    return next((token for name in names if (token := getattr(tokenizer, name, None)) is not None), None)


class OneCallAtATime:
    """Before a tokenizer's own class: every way to call one (`__call__`, `encode`, `tokenize`) ends here."""

    def _encode_plus(self, *given: Any, **options: Any) -> Any:
        with self.__dict__[LOCK]:
            return super()._encode_plus(*given, **options)  # type: ignore[misc]

    def set_truncation_and_padding(self, *given: Any, **options: Any) -> None:
        with self.__dict__[LOCK]:
            super().set_truncation_and_padding(*given, **options)  # type: ignore[misc]

    def __copy__(self) -> Any:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)  # the lock too: both have the same state underneath
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        own: Any = super().__getstate__() or {}
        state = {name: value for name, value in own.items() if name != LOCK}
        return _restored, (type(self).__mro__[2], state)


@cache
def _guarded(plain: type) -> type:
    # The name is written into the files of a saved model, by which others load it
    named = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    return type(plain.__name__, (OneCallAtATime, plain), named)


def _restored(plain: Any, state: dict[str, Any]) -> Any:
    made = plain.__new__(plain)
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
    else:
        made.__dict__.update(state)
    return guard(made)
