"""BM25 against scores computed by hand; saved, opened, damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation import bm25


def test_bm25_ranks_the_rarer_and_stemmed_word_first() -> None:
    texts = ["the cat sat", "a dog and a cat", "running dogs", "of the"]
    queries = {"q": "dog runs", "none": "zebra", "stop": "the"}
    with pytest.warns(DataWarning, match=r"^1 of 3 queries have no word that BM25 could look for \(stop\)$"):
        run = bm25.bm25_run(iter(texts), ["a", "b", "c", "d"], queries, k=100)
    assert list(run) == ["q", "none", "stop"]
    assert sorted(run["q"], key=run["q"].__getitem__, reverse=True) == ["c", "b"]  # a and d share no word with it
    assert run["none"] == run["stop"] == {}
    assert list(bm25.bm25_run(texts, ["a", "b", "c", "d"], {"q": "dog runs"}, k=1)["q"]) == ["c"]
    assert bm25.bm25_run(texts, ["a", "b", "c", "d"], {}) == {}


def test_bm25_score_by_hand() -> None:
    run = bm25.bm25_run(["cat", "dog bird"], ["a", "b"], {"q": "cat"})
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert run == {"q": {"a": pytest.approx(idf * 1 / (1 + 1.5 * (1 - 0.75 + 0.75 * 1 / 1.5)), rel=1e-6)}}


def test_bm25_is_silent_unless_asked(capfd: pytest.CaptureFixture[str]) -> None:
    bm25.bm25_run(["cat", "dog"], ["a", "b"], {"q": "cat"})
    assert capfd.readouterr() == ("", "")


def test_bm25_refuses_what_it_cannot_index() -> None:
    with pytest.raises(UserError, match="found no words in the 2 documents"):
        bm25.bm25_run(["", "the"], ["a", "b"], {"q": "cat"})
    with pytest.raises(UserError, match="one id for each text, got 1 texts and 2 ids"):
        bm25.bm25_run(["cat"], ["a", "b"], {"q": "cat"})
    with pytest.raises(UserError, match="one id for each text, got 1 texts and 2 ids"):
        bm25.BM25Index.build(["the"], ["a", "b"])


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_scores_are_those_of_bm25s_bit_by_bit(at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bm25s

    monkeypatch.setattr(bm25, "TOKENS", at_once)
    draw = np.random.default_rng(0)
    texts = [" ".join(f"w{int(at)}" for at in 40 ** draw.random(draw.integers(0, 30))) for _ in range(60)]
    texts += ["", "the", "w1 w1 w1"]
    bm25.BM25Index.build(texts, [str(number) for number in range(len(texts))]).save(tmp_path / "own")
    vocabulary: dict[str, int] = {}
    tokens = [[vocabulary.setdefault(word, len(vocabulary)) for word in bm25.words(text)] for text in texts]
    model = bm25s.BM25(method=bm25.METHOD, k1=bm25.K1, b=bm25.B)
    model.index((tokens, vocabulary), show_progress=False)
    model.save(tmp_path / "theirs", show_progress=False)
    for path in (tmp_path / "theirs").iterdir():
        assert (tmp_path / "own" / path.name).read_bytes() == path.read_bytes(), path.name


# --- words --------------------------------------------------------------------------------------------------------


def test_words_are_those_of_bm25s() -> None:
    import bm25s
    import Stemmer

    texts = [
        *toys.SENTENCES,
        *toys.TEXTS,
        "",
        "the of and",
        "min_cost(x) // 2, it's 3.5e-7 INF İstanbul naïve_Füchse Москва مدينة",
        "cafe\u0301 m² ½ ﬁn",
    ]
    options = {"token_pattern": bm25.WORD, "stopwords": "english", "stemmer": Stemmer.Stemmer("english")}
    expected = bm25s.tokenize(texts, **options, return_ids=False, show_progress=False)
    assert [bm25.words(text) for text in texts] == expected
    assert bm25.words("Running dogs, and THE min_cost") == ["run", "dog", "min", "cost"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("猫", "猫"),
        ("东京大学", "东 东京 京 京大 大 大学 学"),
        ("猫が好き、犬も", "猫 猫が が好 好 好き 犬 犬も"),
        ("データ", "デー ータ"),
        ("ﾃﾞｰﾀ ＡＢＣ１", "デー ータ abc1"),  # half and full width
        ("한국어 책", "한 한국 국 국어 어 책"),
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8", "한 한국 국"),  # decomposed
        ("the iPhone手机 dogs", "iphon 手 手机 机 dog"),
        ("第2章 min_cost", "第 2 章 min cost"),
        ("ภาษาน้ำ ๒๕", "ภา าษ ษา าน้ น้ำ ๒๕"),
        ("ພາສາ", "ພາ າສ ສາ"),
        ("ភាសា", "ភាសា"),
        ("မြန်မာ", "မြန် န်မာ"),
        ("བོད་སྐད", "བོད སྐད"),
        ("हिन्दी में", "हिन्दी में"),
        ("தமிழ் மொழி", "தமிழ் மொழி"),
        ("𠀀𠀁", "𠀀 𠀀𠀁 𠀁"),
    ],
)
def test_words_of_other_scripts(text: str, expected: str) -> None:
    assert bm25.words(text) == expected.split()


@pytest.mark.parametrize(
    ("documents", "query"),
    [
        (["我们在北京大学学习计算机科学。", "今天天气很好，我们去公园。", "上海是一个大城市。"], "北京大学的计算机"),
        (["東京都の天気予報です。", "大阪で昼ごはんを食べた。", "データを保存する方法。"], "東京の天気"),
        (["한국어를 공부하는 학생", "서울은 큰 도시이다", "커피를 마신다"], "한국어 공부"),
        (["ภาษาไทยเป็นภาษาราชการ", "วันนี้อากาศดีมาก", "แมวกินปลา"], "ราชการไทย"),
        (["ភាសាខ្មែរជាភាសាផ្លូវការ", "ថ្ងៃនេះអាកាសធាតុល្អ", "ឆ្មាស៊ីត្រី"], "ភាសាផ្លូវការ"),
        (["ພາສາລາວເປັນພາສາທາງການ", "ມື້ນີ້ອາກາດດີ", "ແມວກິນປາ"], "ທາງການລາວ"),
        (["မြန်မာဘာသာစကား", "ဒီနေ့ရာသီဥတုကောင်းတယ်", "ကြောင်ငါးစားတယ်"], "ဘာသာစကား"),
    ],
)
def test_texts_without_spaces_are_found(documents: list[str], query: str) -> None:
    assert next(iter(bm25.bm25_run(documents, ["a", "b", "c"], {"q": query})["q"])) == "a"


def test_the_same_texts_give_the_same_index_whatever_the_hash_seed() -> None:
    built = bm25.BM25Index.build(["dog cat", "bird dog"], ["a", "b"])
    assert list(built.model.vocab_dict.items()) == [("dog", 0), ("cat", 1), ("bird", 2), ("", 3)]
    assert built.model.scores["indices"].tolist() == [0, 1, 0, 1]


# --- scores -------------------------------------------------------------------------------------------------------


def idf(count: int, documents: int) -> float:
    return math.log(1 + (documents - count + 0.5) / (count + 0.5))


def test_unknown_words_score_nothing_and_repeated_words_count_again() -> None:
    index = bm25.BM25Index.build(["cat", "dog bird"], ["a", "b"])
    once = index.scores("cat")
    assert index.scores("zebra the").tolist() == [0, 0] and index.scores("").dtype == np.float32
    assert index.scores("cat zebra").tolist() == once.tolist()
    assert index.scores("cats cat").tolist() == (2 * once).tolist()


def test_the_bound_by_hand() -> None:
    index = bm25.BM25Index.build(["cat", "dog bird", "dog"], ["a", "b", "c"])
    assert index.bound("dog") == pytest.approx(idf(2, 3))
    assert index.bound("a dog and dogs") == pytest.approx(2 * idf(2, 3))
    assert index.bound("cat zebra") == pytest.approx(idf(1, 3) + idf(0, 3))
    assert index.bound("the") == index.bound("") == 0


def test_no_document_exceeds_the_bound() -> None:
    random = np.random.default_rng(0)
    names = [f"w{number}" for number in range(20)]
    texts = [" ".join(random.choice(names, random.integers(1, 9))) for _ in range(60)]
    texts += ["w0 " * 5000, "w1"]  # as near as a document comes
    index = bm25.BM25Index.build(texts, [str(number) for number in range(len(texts))])
    queries = ["w0", "w1 w1", *(" ".join(random.choice(names, 4)) for _ in range(40))]
    for query in queries:
        assert 0 < index.scores(query).max() <= index.bound(query) * (1 + 1e-6)
    assert index.scores("w0").max() > 0.95 * index.bound("w0")


def test_best_positions_keep_the_order_of_equal_scores() -> None:
    scores = np.array([1, 2, 2, 0, 2], dtype=np.float32)
    assert bm25.best_positions(scores, 2).tolist() == [1, 2]
    assert bm25.best_positions(scores, 4).tolist() == [1, 2, 4, 0]
    assert bm25.best_positions(scores, 5).tolist() == bm25.best_positions(scores, 9).tolist() == [1, 2, 4, 0, 3]


# --- save and open ------------------------------------------------------------------------------------------------

TEXTS = ["the cat sat", "a dog and a cat", "running dogs", "of the"]
IDS = ["a", "b", "c", "d"]
QUERIES = ["dog", "cat cat runs", "zebra", "the", "sat dog bird"]


@pytest.mark.parametrize("mmap", [True, False])
def test_what_is_opened_scores_as_what_was_built(tmp_path: Path, mmap: bool) -> None:
    import bm25s

    built = bm25.BM25Index.build(TEXTS, IDS)
    built.save(tmp_path / "words")
    opened = bm25.BM25Index.open(tmp_path / "words", IDS, mmap=mmap)
    assert isinstance(opened.model.scores["data"].base, np.memmap) == mmap
    assert (len(opened), opened.nbytes) == (4, built.nbytes)
    theirs = bm25s.BM25.load(tmp_path / "words", show_progress=False)
    for query in QUERIES:
        assert np.array_equal(opened.scores(query), built.scores(query))
        assert opened.bound(query) == built.bound(query)
        known = [theirs.vocab_dict[word] for word in bm25.words(query) if word in theirs.vocab_dict]
        assert np.array_equal(opened.scores(query), theirs.get_scores_from_ids(known))
    opened.save(tmp_path / "copy")
    copies = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert copies == {path.name: path.read_bytes() for path in (tmp_path / "words").iterdir()}


def rewritten(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Damage: an array or JSON file with another content of its own format."""

    def damage(folder: Path) -> None:
        path = folder / name
        if path.suffix == ".json":
            path.write_text(json.dumps(change(json.loads(path.read_text()))))
        else:
            np.save(path, change(np.load(path)))

    return damage


DATA, INDICES, INDPTR = ("data.csc.index.npy", "indices.csc.index.npy", "indptr.csc.index.npy")


@pytest.mark.parametrize("name", [DATA, INDICES, INDPTR, "vocab.index.json", "params.index.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: None,
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: bytes(len(content)),
        lambda content: bytes(255 - byte for byte in content),
        lambda content: b"PK\x03\x04" + content[4:],  # numpy takes it for an archive
        lambda content: b"null",
    ],
)
def test_a_damaged_file_is_one_line_that_names_the_folder(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes | None]
) -> None:
    bm25.BM25Index.build(TEXTS, IDS).save(tmp_path)
    path = tmp_path / name
    content = damage(path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)
    for mmap in (True, False):
        with pytest.raises(UserError) as caught:
            bm25.BM25Index.open(tmp_path, IDS, mmap=mmap)
        message = str(caught.value)
        assert message.startswith(f"the BM25 index in {tmp_path} is damaged (") and message.endswith("; index again")
        assert "\n" not in message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rewritten(INDICES, lambda array: array + 2), "damaged \\(a score is that of no document\\)"),
        (rewritten(INDICES, lambda array: array - 2), "damaged \\(a score is that of no document\\)"),
        (rewritten(INDICES, lambda array: array[:-1]), "damaged \\(the lists do not fit the scores\\)"),
        (rewritten(INDPTR, lambda array: array[::-1]), "damaged \\(the lists do not fit the scores\\)"),
        (rewritten(INDPTR, lambda array: array + 1), "damaged \\(the lists do not fit the scores\\)"),
        (rewritten(INDPTR, lambda array: array[:-1]), "damaged \\(the words do not fit their 3 lists\\)"),
        (rewritten(DATA, lambda array: array.astype(float)), "npy is of type float64 and 1 dimensions"),
        (rewritten(DATA, lambda array: array[None]), "npy is of type float32 and 2 dimensions"),
        (rewritten("vocab.index.json", lambda words: {**words, "cat": 99}), "the words do not fit their 4 lists"),
        (rewritten("vocab.index.json", lambda words: list(words)), "damaged"),
        (
            rewritten("params.index.json", lambda made: {**made, "num_docs": 10**15}),
            "holds 10{15} documents, expected 4",
        ),
        (rewritten("params.index.json", lambda made: {**made, "num_docs": 2}), "a score is that of no document"),
        (rewritten("params.index.json", lambda made: {**made, "k1": 9}), "other settings, \\('lucene', 9, 0.75\\)"),
        (rewritten("params.index.json", lambda made: {**made, "method": "bm25l"}), "made with other settings"),
    ],
)
def test_what_fits_no_index_is_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    bm25.BM25Index.build(TEXTS, IDS).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        bm25.BM25Index.open(tmp_path, IDS)


def test_settings_of_the_file_that_are_not_ours_are_not_read(tmp_path: Path) -> None:
    built = bm25.BM25Index.build(TEXTS, IDS)
    built.save(tmp_path)
    rewritten("params.index.json", lambda made: {**made, "dtype": "O", "backend": "numba", "x": 1})(tmp_path)
    assert bm25.BM25Index.open(tmp_path, IDS).scores("dog").tolist() == built.scores("dog").tolist()


def test_pickles_are_not_read(tmp_path: Path) -> None:
    bm25.BM25Index.build(TEXTS, IDS).save(tmp_path)
    np.save(tmp_path / DATA, np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"is damaged .*objects"):
        bm25.BM25Index.open(tmp_path, IDS)


def test_the_words_of_another_number_of_documents(tmp_path: Path) -> None:
    bm25.BM25Index.build(TEXTS, IDS).save(tmp_path)
    with pytest.raises(UserError, match="holds 4 documents, expected 3; index again"):
        bm25.BM25Index.open(tmp_path, IDS[:3])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ދިވެހި ބަސް", ["ދިވެހި", "ބަސް"]),
        ("שָׁלוֹם עולם", ["שלום", "עולם"]),
        ("كِتَابٌ جديد", ["كتاب", "جديد"]),
    ],
)
def test_vowel_signs_and_points_cut_no_word(text: str, expected: list[str]) -> None:
    assert bm25.words(text) == expected


def test_an_index_says_how_texts_were_made_words(tmp_path: Path) -> None:
    bm25.BM25Index.build([*TEXTS[:3], "北京大学"], IDS).save(tmp_path)
    assert json.loads((tmp_path / "words.json").read_text()) == {"scripts": 1}
    assert list(bm25.BM25Index.open(tmp_path, IDS).run({"q": "大学"}, 1)["q"]) == ["d"]
    rewritten("words.json", lambda made: {"scripts": 2})(tmp_path)
    other = r"the BM25 index in \S+ divides texts without spaces in another way; index again"
    with pytest.raises(UserError, match=other):
        bm25.BM25Index.open(tmp_path, IDS)
    (tmp_path / "words.json").unlink()  # as it was before it was said
    with pytest.raises(UserError, match=other):
        bm25.BM25Index.open(tmp_path, IDS)
    latin = bm25.BM25Index.build(TEXTS, IDS)
    latin.save(tmp_path / "latin")
    (tmp_path / "latin" / "words.json").unlink()
    assert bm25.BM25Index.open(tmp_path / "latin", IDS).scores("dog").tolist() == latin.scores("dog").tolist()
