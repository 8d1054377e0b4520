"""Words of scripts that BM25's rule for Latin text does not serve: those without spaces, and those with vowel signs.

Chinese, Japanese and Korean give pairs of neighbouring characters, as Lucene's CJKAnalyzer does, and each Han character
or Korean syllable, which is a word often enough, for itself: Nie et al. 2000 ("On the Use of Words and N-grams for
Chinese Information Retrieval") find both together best. Thai, Lao, Khmer, Burmese and others give pairs of letters,
each with the signs that stand on it. Scripts with spaces whose vowels are signs keep their words whole: those of India
and Sri Lanka, Tibetan and Thaana; Hebrew and Arabic are read without their points. Knows no stop words, no stemmer and
no index.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

HAN = (
    r"\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
KANA = r"\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"
HANGUL = r"\u1100-\u11ff\u3131-\u318e\ua960-\ua97f\uac00-\ud7a3\ud7b0-\ud7ff"
BOPOMOFO_YI = r"\u3105-\u312f\u31a0-\u31bf\ua000-\ua48c"
CJK = HAN + KANA + HANGUL + BOPOMOFO_YI
# Without their digits and punctuation
THAI_LAO = r"\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u0edc-\u0edf"
BURMESE_KHMER = r"\u1000-\u103f\u1050-\u109f\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f\u1780-\u17d3\u17d7\u17dc\u17dd"
OTHERS = r"\u1950-\u1974\u1980-\u19c9\u1a20-\u1a7c\u1b00-\u1b4b\ua980-\ua9c0\uaa80-\uaadf"  # Tai, Balinese, Javanese
LETTERS = THAI_LAO + BURMESE_KHMER + OTHERS
# Thaana, Devanagari to Sinhala, Tibetan
SIGNED = r"\u0780-\u07b1\u0900-\u0963\u0966-\u096f\u0971-\u0df3\u0f00\u0f18-\u0f3f\u0f40-\u0fbc"
WIDE = r"\uff00-\uffef"  # Latin letters as wide as Han characters, and katakana half as wide
POINTS = (
    r"\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"  # Hebrew, Arabic
)
DROPPED = re.compile(rf"[\u200c\u200d{POINTS}]")  # joiners say how letters are drawn
OTHER = re.compile(f"[{CJK}{LETTERS}{SIGNED}{WIDE}{POINTS}]")
TOKEN = re.compile(f"([{CJK}]+)|([{LETTERS}]+)|([{SIGNED}]+)|([^\\W_{CJK}{LETTERS}{SIGNED}]+)")
ALONE = re.compile(f"[{HAN}{HANGUL}]")  # one character may be a word


def has_other_script(text: str) -> bool:
    """Whether a text has a character that `segments` is for."""
    return not text.isascii() and OTHER.search(text) is not None


def segments(text: str) -> tuple[list[str], list[bool]]:
    """The words of a text in lower case, in its order, and of each whether it is one of another script.

    >>> segments("iphone手机 在哪")
    (['iphone', '手', '手机', '机', '在', '在哪', '哪'], [False, True, True, True, True, True, True])
    """
    text = DROPPED.sub("", text)
    text = re.sub(f"[{WIDE}]+", lambda wide: unicodedata.normalize("NFKC", wide[0]).lower(), text)
    words: list[str] = []
    other: list[bool] = []
    for cjk, letters, signed, word in TOKEN.findall(text):
        if cjk:
            found = _pairs(unicodedata.normalize("NFC", cjk), alone=True)
        elif letters:
            found = _pairs(_with_signs(letters), alone=False)
        else:
            found = [unicodedata.normalize("NFC", signed) or word]
        words += found
        other += [not word] * len(found)
    return words, other


def _pairs(units: str | list[str], *, alone: bool) -> list[str]:
    """Neighbouring units together, and with `alone` each that may be a word; a single unit is itself."""
    if len(units) < 2:
        return list(units)
    if not alone:
        return [first + second for first, second in pairwise(units)]
    found: list[str] = []
    for first, second in pairwise(units):
        found += [first, first + second] if ALONE.match(first) else [first + second]
    return found + [units[-1]] * bool(ALONE.match(units[-1]))


def _with_signs(letters: str) -> list[str]:
    """Letters, each with the marks that follow it."""
    units: list[str] = []
    for character in letters:
        if units and unicodedata.category(character).startswith("M"):
            units[-1] += character
        else:
            units.append(character)
    return units
