"""A soft prompt for a frozen language model: where it enters, what it learns, its folder, PEFT, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from command_line import Command
from language_models import write_language_model

from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.pairs.generated import Writer, judged_pairs, write_queries_like
from retrieval_prompts.interop.peft_writing import read_writing_adapter, write_writing_adapter
from retrieval_prompts.prompts.writing_folder import WritingPrompt, load_writing
from retrieval_prompts.towers.language import IGNORED, LanguageModel
from retrieval_prompts.training.losses import next_token
from retrieval_prompts.training.tasks.next_tokens import WritingTask
from retrieval_prompts.training.tasks.settings import WritingSettings

TEXTS = ["river copper basalt", "lantern", "what does the evidence show about falcon"]
KINDS = ("causal", "seq2seq")


@pytest.fixture(scope="module", params=KINDS)
def language(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel(str(write_language_model(tmp_path_factory.mktemp(request.param), request.param)))


def prompt_of(language: LanguageModel, length: int = 3) -> torch.Tensor:
    return torch.randn(length, language.width, generator=torch.Generator().manual_seed(1))


def test_the_loss_of_tokens_by_hand() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[0.9, 0.1], [0.5, 0.5]]]))
    targets = torch.tensor([[0, 1], [IGNORED, IGNORED]])
    assert float(next_token(logits, targets)) == pytest.approx(-(torch.tensor([0.5, 0.75]).log().mean().item()))
    assert float(next_token(logits, torch.full((2, 2), IGNORED))) == 0


def test_no_prompt_is_the_models_own_loss(language: LanguageModel) -> None:
    """The mean over the written tokens, as transformers itself gives it for one pair."""
    source, target = language.pair(TEXTS[0], "falcon glacier", 0)
    logits, labels = language.logits([(source, target)])
    if language.causal:
        both = torch.tensor([[*source, *target]])
        answers = torch.tensor([[*[IGNORED] * len(source), *target]])
        theirs = language.model(input_ids=both, labels=answers).loss
    else:
        theirs = language.model(input_ids=torch.tensor([source]), labels=torch.tensor([target])).loss
    assert float(next_token(logits, labels)) == pytest.approx(float(theirs), abs=1e-6)


def test_a_prompt_of_words_is_these_words(language: LanguageModel) -> None:
    """The rows of three words as a prompt give the loss of a text that begins with these words."""
    words = language.tokenizer("copper lantern orchid", add_special_tokens=False)["input_ids"]
    source, target = language.pair(TEXTS[0], "falcon", 0)
    prompt = language.embeddings.weight[torch.tensor(words)]
    ours = next_token(*language.logits([(source, target)], prompt))
    theirs = next_token(*language.logits([([*words, *source], target)]))
    assert float(ours) == pytest.approx(float(theirs), abs=1e-6)


def test_pairs_do_not_depend_on_each_other(language: LanguageModel) -> None:
    pairs = [language.pair(text, target, 3) for text, target in zip(TEXTS, ("falcon", "maple cedar", "a"), strict=True)]
    prompt = prompt_of(language)
    logits, labels = language.logits(pairs, prompt)
    for row, pair in enumerate(pairs):
        alone, own = language.logits([pair], prompt)
        T = own.shape[1]
        assert torch.equal(labels[row, :T], own[0]) and bool((labels[row, T:] == IGNORED).all())
        assert torch.allclose(logits[row, :T][own[0] >= 0], alone[0][own[0] >= 0], atol=1e-5)


def pairs_to_learn() -> list[tuple[str, str]]:
    return [(f"{a} {b}", f"what about {a}") for a, b in zip(tiny.WORDS[:20], tiny.WORDS[20:40], strict=True)]


def test_it_learns_and_the_model_stays_as_it_is(language: LanguageModel) -> None:
    before = {name: value.clone() for name, value in language.model.state_dict().items()}
    settings = WritingSettings.of(length=4, max_steps=30, learning_rate=0.1)
    task, training = write_queries_like(language, pairs_to_learn(), settings)
    steps = list(training)
    assert len(steps) == 31  # and the dev loss before
    found = task.found()
    losses = found.training["dev_loss"]
    assert losses["prompt"] < losses["frozen"] - 0.3
    assert -losses["prompt"] == pytest.approx(max(step.dev for step in steps if step.dev is not None), abs=1e-5)
    assert found.training["train_pairs"] == 16 and found.training["dev_pairs"] == 4
    for name, value in language.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    again, training = write_queries_like(language, pairs_to_learn(), settings)
    assert len(list(training)) == 31
    assert torch.equal(again.found().vectors, found.vectors)


def test_a_writer_writes_with_its_prompt(language: LanguageModel) -> None:
    prompt = WritingPrompt.of(language, 3 * prompt_of(language, 8), {})
    plain, steered = Writer(language, []), Writer(language, [], prompt)
    assert plain.identity != steered.identity
    assert plain.identity == language.fingerprint
    if language.causal:  # the random T5 ends at once
        assert [language.write(text, prompt.vectors) for text in TEXTS] != [language.write(text) for text in TEXTS]
    assert steered.write(TEXTS[0]) == language.write(steered.prompt(TEXTS[0]), prompt.vectors).strip()
    assert isinstance(language.write("river " * 500, prompt.vectors), str)  # longer than the model


def test_mistakes_are_said(language: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 10 pairs of a text and what is to be written, got 3"):
        WritingTask(language, [("a", "b")] * 3, WritingSettings.of())
    kind = "causal" if language.causal else "seq2seq"
    other = LanguageModel(str(write_language_model(tmp_path / "other", kind, seed=1)))
    prompt = WritingPrompt.of(language, prompt_of(language), {})
    with pytest.raises(UserError, match=r"--generator-prompt was made for .*; use that model, or train again"):
        Writer(other, [], prompt)
    with pytest.raises(UserError, match=r"--generator .*none"):
        LanguageModel(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"--generator .*device type .*: nowhere"):
        LanguageModel(language.name, "nowhere")
    encoder = tiny.write_model(tmp_path / "encoder")
    with pytest.raises(UserError, match=r"model is not a language model: it has no cls\.predictions\..*, which BertLM"):
        LanguageModel(str(encoder))


def test_a_prompt_leaves_room_for_a_text(language: LanguageModel) -> None:
    """No more than the model has positions; in a causal one the query takes some of them."""
    long = prompt_of(language, language.positions - (32 if language.causal else 0))
    assert language.write("river", long[1:]) == language.write("river " * 9, long[1:])  # of the text one token is left
    with pytest.raises(UserError, match=r"has room for \d+ tokens, and none for a text beside a prompt of \d+ vectors"):
        language.write("river", long)
    with pytest.raises(UserError, match="train a shorter one"):
        write_queries_like(language, pairs_to_learn(), WritingSettings.of(length=language.positions))


def test_what_diverges_says_what_may_help(language: LanguageModel) -> None:
    task, _ = write_queries_like(language, pairs_to_learn(), WritingSettings.of(length=2, max_steps=5))
    task.loss = lambda _: torch.nan * task.table().sum()  # type: ignore[assignment, method-assign]
    with pytest.raises(UserError, match=r"not finite .*; try a smaller --lr$"):
        list(task.train())


def test_a_folder_holds_the_prompt(language: LanguageModel, tmp_path: Path) -> None:
    prompt = WritingPrompt.of(language, prompt_of(language), {"note": 1})
    prompt.save(tmp_path / "kept")
    again = load_writing(tmp_path / "kept")
    assert torch.equal(again.vectors, prompt.vectors)
    assert (again.base, again.training) == (prompt.base, prompt.training)
    with pytest.raises(UserError, match="exists already"):
        prompt.save(tmp_path / "kept")
    (tmp_path / "kept" / "prompt.json").write_text("{}")
    with pytest.raises(UserError, match="expected format"):
        load_writing(tmp_path / "kept")


# --- PEFT -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_peft_gives_the_same_logits(language: LanguageModel, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    prompt = WritingPrompt.of(language, prompt_of(language), {})
    write_writing_adapter(prompt, language, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(LanguageModel(language.name).model, tmp_path / "adapter").eval()
    source, target = language.pair(TEXTS[0], "falcon glacier", 3)
    ours, labels = language.logits([(source, target)], prompt.vectors)
    seen = torch.tensor([[*source, *target] if language.causal else source])
    answers = torch.tensor([[*[IGNORED] * len(source), *target] if language.causal else target])
    with torch.no_grad():
        out = theirs(input_ids=seen, attention_mask=torch.ones_like(seen), labels=answers)
    assert float(out.loss) == pytest.approx(float(next_token(ours, labels)), abs=1e-6)
    if language.causal:  # token by token, by PEFT's forward: its generate counts positions otherwise
        written = language.tokenizer(TEXTS[0], return_tensors="pt").input_ids
        with torch.no_grad():
            for _ in range(4):
                best = theirs(input_ids=written, attention_mask=torch.ones_like(written)).logits[:, -1].argmax(dim=1)
                written = torch.cat([written, best[:, None]], dim=1)
        new = language.tokenizer.decode(written[0, -4:], skip_special_tokens=True)
        assert language.write(TEXTS[0], prompt.vectors, tokens=4) == new


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_of_peft_is_read(language: LanguageModel, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    task = "CAUSAL_LM" if language.causal else "SEQ_2_SEQ_LM"
    config = peft.PromptTuningConfig(task_type=task, num_virtual_tokens=3)
    made = peft.get_peft_model(LanguageModel(language.name).model, config)
    made.save_pretrained(tmp_path / "adapter")
    found = read_writing_adapter(tmp_path / "adapter", language)
    assert torch.equal(found.vectors, made.get_prompt(1)[0, :3].detach())
    write_writing_adapter(found, language, tmp_path / "back")
    assert torch.equal(read_writing_adapter(tmp_path / "back", language).vectors, found.vectors)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_virtual_tokens": 9}))
    with pytest.raises(UserError, match=r"expected a num_virtual_tokens from 1 to \d, got 9"):
        read_writing_adapter(tmp_path / "adapter", language)


# --- the command line -----------------------------------------------------------------------------------------------


def test_the_command_trains_and_converts(command: Command, tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    model = write_language_model(tmp_path / "model", "causal")
    quick = ("--max-steps", 20, "--lr", 0.1, "--length", 2, "--json", tmp_path / "r.json")
    done = command("generator", data, "--generator", model, "--out", tmp_path / "p", *quick)
    assert done.code == 0, done.err
    assert "documents with their queries to learn from, " in done.out
    assert "loss a token of held-out queries: " in done.out
    assert "--generator-prompt" in done.out
    weak = command("generator", data, "--generator", model, "--out", tmp_path / "w", "--max-steps", 1, "--lr", 1e-9)
    assert "this prompt does not help" in weak.out and "--generator-prompt" not in weak.out
    assert set(json.loads((tmp_path / "r.json").read_text())["dev_loss"]) == {"frozen", "prompt"}
    assert command("verify", tmp_path / "p").code == 0
    assert len(judged_pairs(load(data), 20)) >= 20
    odd = command("convert", tmp_path / "p", "--out", tmp_path / "adapter", "--side", "query", "--query-words", "q: ")
    assert odd.code == 2 and "--query-words, --side: " in odd.err and "is for a language model" in odd.err
    to = command("convert", tmp_path / "p", "--out", tmp_path / "adapter")
    assert to.code == 0 and "a PEFT adapter of prompt tuning" in to.out
    back = command("convert", tmp_path / "adapter", "--out", tmp_path / "q")
    assert back.code == 0, back.err
    assert torch.equal(load_writing(tmp_path / "q").vectors, load_writing(tmp_path / "p").vectors)
    other = command("tune", data, "--out", tmp_path / "t", "--generator-prompt", tmp_path / "p")
    assert other.code == 2 and "--generator-prompt is used with --pairs generated" in other.err


def test_written_queries_are_those_of_the_prompt(tmp_path: Path) -> None:
    """What the soft prompt is trained on is what the writer is asked later."""
    language = LanguageModel(str(write_language_model(tmp_path / "m", "causal")))
    task, _ = write_queries_like(language, pairs_to_learn(), WritingSettings.of(length=2, max_steps=1))
    asked = [language.tokenizer(Writer(language, []).prompt(text))["input_ids"] for text, _ in pairs_to_learn()]
    assert sorted(asked) == sorted(source for source, _ in (*task.train_pairs, *task.dev))
