"""Rows of token ids: places for context vectors around names, nothing lost, for tokenizers of every family."""

from __future__ import annotations

import pytest
import toy_clips
from torch import Tensor
from toy_clips import CONTEXT_LENGTH, TOYS

from multimodal.towers.tokens import SLOT, Rows, Tokens
from retrieval_prompts.errors import UserError

SOS, EOT = 49406, 49407
PHOTO, OF, DOG, DOT = 1125, 539, 1929, 269  # CLIP's own: "photo", "of", "dog", "."
FAMILIES = ("simple", "bert", "mpnet", "roberta", "xlm-roberta", "distilbert", "modernbert", "headless", "one end")
TEXTS = ("fox", "A frozen retriever finds it", "  the  lazy dog, and x[0]", "Überall naïve Füchse – & 🙂", "dogs.", "a")


@pytest.fixture(scope="module")
def clips() -> Tokens:
    """CLIP's own tokenizer, for texts of 10 tokens."""
    return Tokens(toy_clips.tokenizer("simple", 10), 10)


# --- CLIP's rows ----------------------------------------------------------------------------------------------------


def test_rows_of_clip_by_hand(clips: Tokens) -> None:
    assert (clips.lead, clips.trail, clips.pad, clips.room) == ([SOS], [EOT], 0, 8)
    rows = clips.rows(["dog", "photo of dog"], 3)
    assert rows.ids == ((SOS, *[SLOT] * 3, DOG, DOT, EOT), (SOS, *[SLOT] * 3, PHOTO, OF, DOG, DOT, EOT))
    assert (len(rows), rows.longest, rows.length, rows.position) == (2, 9, 3, "end")


@pytest.mark.parametrize(
    ("position", "length", "row"),
    [
        ("end", 2, (SOS, SLOT, SLOT, PHOTO, DOG, DOT, EOT)),
        ("middle", 2, (SOS, SLOT, PHOTO, DOG, SLOT, DOT, EOT)),
        ("middle", 3, (SOS, SLOT, PHOTO, DOG, SLOT, SLOT, DOT, EOT)),  # the smaller half before, as in CoOp
        ("middle", 1, (SOS, PHOTO, DOG, SLOT, DOT, EOT)),
        ("front", 2, (SOS, PHOTO, DOG, SLOT, SLOT, DOT, EOT)),
        ("end", 0, (SOS, PHOTO, DOG, DOT, EOT)),
        ("front", 0, (SOS, PHOTO, DOG, DOT, EOT)),
    ],
)
def test_where_the_slots_are(clips: Tokens, position: str, length: int, row: tuple[int, ...]) -> None:
    rows = clips.rows(["photo dog"], length, position)
    assert rows == Rows((row,), length, position)


def test_the_suffix_is_behind_name_and_context(clips: Tokens) -> None:
    assert clips.rows(["dog"], 1, suffix="").ids == ((SOS, SLOT, DOG, EOT),)
    assert clips.rows(["dog"], 1, suffix=" photo.").ids == ((SOS, SLOT, DOG, PHOTO, DOT, EOT),)
    assert clips.rows(["dog"], 1, "front", suffix=" photo.").ids == ((SOS, DOG, SLOT, PHOTO, DOT, EOT),)


def test_a_suffix_that_becomes_one_token_with_the_name_is_not_lost(clips: Tokens) -> None:
    """CoOp tokenises "X X St..": two dots are one token of CLIP's."""
    whole = clips.of("st..")
    assert [*whole[:-1], DOT] == clips.of("st.") != whole
    assert clips.rows(["St."], 2).ids == ((SOS, SLOT, SLOT, *whole, EOT),)


def test_unknown_positions_are_refused(clips: Tokens) -> None:
    with pytest.raises(UserError, match=r"^the class name's position must be end, middle, front, got 'back'$"):
        clips.rows(["dog"], 2, "back")


# --- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_name_that_is_too_long_is_named(clips: Tokens, position: str) -> None:
    assert len(clips.rows(["dog " * 5], 2, position).ids[0]) == 10, "SOS, 2 slots, 5 names, a dot, EOT"
    with pytest.raises(UserError) as caught:
        clips.rows(["dog", "dog " * 6, "dog"], 2, position)
    assert str(caught.value) == (
        "the class name 'dog dog dog dog dog dog ' has 7 tokens; 6 fit beside 2 context vectors; shorten the name or "
        "use a shorter --context"
    )
    with pytest.raises(UserError, match=r"^the class name '(dog ){20}' has 401 tokens; 6 fit"):
        clips.rows(["dog " * 400], 2, position)  # not all of it is repeated


def test_a_context_that_leaves_no_room_is_refused(clips: Tokens) -> None:
    assert clips.rows(["dog"], 7, suffix="").ids == ((SOS, *[SLOT] * 7, DOG, EOT),)
    with pytest.raises(UserError) as caught:
        clips.rows(["dog"], 8, suffix="")
    assert str(caught.value) == (
        "a context of 8 vectors leaves no room for a name in 10 positions; use a shorter --context"
    )


def test_a_cut_keeps_the_suffix_and_eot(clips: Tokens) -> None:
    text = "photo of dog " * 5
    assert clips.rows([text], 0, suffix="", cut=True).ids == ((SOS, *[PHOTO, OF, DOG] * 2, PHOTO, OF, EOT),)
    assert clips.rows([text], 4, cut=True).ids == ((SOS, *[SLOT] * 4, PHOTO, OF, DOG, DOT, EOT),)
    assert clips.rows(["dog"], 4, cut=True) == clips.rows(["dog"], 4), "what fits stays"
    # As CLIP's tokenizer cuts
    assert list(clips.rows([text], 0, suffix="", cut=True).ids[0]) == clips.tokenizer([text])[0].tolist()


# --- tokenizers of every family --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_without_slots_a_row_is_the_tokenizers_own(family: str) -> None:
    tokenizer = toy_clips.tokenizer(family, 60)
    tokens = Tokens(tokenizer, 60)
    for suffix in ("", "."):
        rows = tokens.rows(TEXTS, 0, suffix=suffix).ids
        padded = [[*row, *[tokens.pad] * (60 - len(row))] for row in rows]
        assert padded == tokenizer([text + suffix for text in TEXTS]).tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [1, 2, 5])
def test_slots_stand_for_words(family: str, length: int) -> None:
    """With a one-token word in the slots a row is that of the whole sentence: a name behind other words differs from a
    first one, where a tokenizer keeps spaces with the words behind them.
    """
    tokenizer = toy_clips.tokenizer(family, 60)
    tokens = Tokens(tokenizer, 60)
    first, other = tokens.of("a", first=True), tokens.of("a")
    assert len(first) == len(other) == 1
    for words in ("fox", "A frozen retriever finds it", "the lazy dog, and x"):
        for position, sentence in (
            ("end", f"{'a ' * length}{words}."),
            ("middle", f"{'a ' * (length // 2)}{words}{' a' * (length - length // 2)}."),
            ("front", f"{words}{' a' * length}."),
        ):
            row = list(tokens.rows([words], length, position).ids[0])
            assert row.count(SLOT) == length
            starts = len(tokens.lead) if row[len(tokens.lead)] == SLOT else -1
            filled = [(first if at == starts else other)[0] if id == SLOT else id for at, id in enumerate(row)]
            assert filled + [tokens.pad] * (60 - len(row)) == tokenizer([sentence])[0].tolist()


def test_spaces_before_words() -> None:
    """Byte-level tokenizers write a space into the word behind it; the others do not."""
    for family in FAMILIES:
        tokens = Tokens(toy_clips.tokenizer(family, 60), 60)
        differ = family in ("roberta", "modernbert", "headless", "one end")
        assert (tokens.of("dog") != tokens.of("dog", first=True)) == differ
        front, end = tokens.rows(["dog"], 2, "front").ids[0], tokens.rows(["dog"], 2).ids[0]
        lead, words = len(tokens.lead), len(tokens.of("dog", first=True))
        assert list(front[lead : lead + words]) == tokens.of("dog", first=True)
        assert list(end[lead + 2 : lead + 2 + len(tokens.of("dog"))]) == tokens.of("dog")


@pytest.mark.parametrize("name", TOYS)
def test_what_stands_around_a_text(name: str) -> None:
    tokens = Tokens(toy_clips.shared_tokenizer(name), CONTEXT_LENGTH)
    assert (tuple(tokens.lead), tokens.trail) == (TOYS[name].lead, [TOYS[name].end])
    special = {*tokens.lead, *tokens.trail} | ({tokens.pad} if TOYS[name].tokenizer != "simple" else set())
    assert tokens.placeholder not in special


def test_a_separator_that_is_stripped_is_written_as_zero() -> None:
    """CLIPA's: BERT's tokenizer, and 0 in the place of [SEP]."""
    tokenizer = toy_clips.tokenizer("bert", strip_sep_token=True)
    tokens = Tokens(tokenizer, CONTEXT_LENGTH)
    assert (tokens.lead, tokens.trail) == ([2], [0])
    assert tokens.rows(["dog"], 0, suffix="").ids[0] == (2, *tokens.of("dog"), 0)


def test_a_tokenizer_that_canonicalises() -> None:
    """SigLIP's lowers and drops punctuation, the dot behind a name included."""
    tokenizer = toy_clips.tokenizer("bert", clean="canonicalize")
    tokens = Tokens(tokenizer, CONTEXT_LENGTH)
    assert tokens.rows(["Dog, fox!"], 2) == tokens.rows(["dog fox"], 2, suffix="")


def test_the_context_length_is_the_models() -> None:
    """A tokenizer for texts of 77 tokens with a model for 12, and the other way round."""
    for told, used in ((77, 12), (12, 77), (77, 4)):
        tokens = Tokens(toy_clips.tokenizer("simple", told), used)
        assert (tokens.context_length, tokens.room) == (used, used - 2)
    with pytest.raises(UserError, match="3 tokens; 2 fit beside 0 context vectors"):
        tokens.rows(["photo dog"], 0)


# --- tokenizers without a place for vectors --------------------------------------------------------------------------

REFUSED = (
    r"^this model's \w+ writes rows that are not special tokens, text, special tokens, padding; context vectors have "
    r"no place in them$"
)


@pytest.mark.parametrize("mask", ["simple", "random", "shuffle"])
def test_a_tokenizer_that_drops_words_is_refused(mask: str) -> None:
    tokenizer = toy_clips.tokenizer("simple", reduction_mask=mask)
    with pytest.raises(
        UserError, match=r"^this tokenizer drops words at random \(reduction_mask\); expected one that "
    ):
        Tokens(tokenizer, CONTEXT_LENGTH)


def test_rows_of_another_make_are_refused() -> None:
    clips = toy_clips.tokenizer("xlm-roberta", tokenizer_mode="clips")  # its class token stands behind the padding
    left = toy_clips.tokenizer("qwen3")  # its padding stands before the text
    canonical = toy_clips.tokenizer("bert", clean="canonicalize")

    class Secret:
        """As SigLipTokenizer, which does not tell how it cleans a text."""

        tokenizer = canonical.tokenizer

        def __call__(self, texts: list[str], length: int) -> Tensor:
            return canonical(texts, length)

    for tokenizer in (clips, left, Secret()):
        with pytest.raises(UserError, match=REFUSED):
            Tokens(tokenizer, CONTEXT_LENGTH)


def test_what_is_no_tokenizer_of_open_clips_is_refused() -> None:
    with pytest.raises(UserError, match=r"^expected an open_clip tokenizer, got function$"):
        Tokens(lambda texts: texts, 77)
    unpadded = toy_clips.tokenizer("bert")
    unpadded.tokenizer.pad_token = None
    with pytest.raises(UserError, match=r"^this model's HFTokenizer has no padding token; expected one that has$"):
        Tokens(unpadded, CONTEXT_LENGTH)
