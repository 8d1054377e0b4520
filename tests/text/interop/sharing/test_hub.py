"""The hub, with the real client against a small server on this machine: what is pushed is fetched again, what strangers
put there is not trusted, and errors are one line; the model card says what the prompt folder knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from fake_hub import TOKEN, FakeHub
from huggingface_hub import constants
from safetensors.torch import save
from sentence_transformers import SentenceTransformer
from toys import TEXTS

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.cli.commands.sharing.pull import pull
from retrieval_prompts.cli.commands.sharing.push import push as push_command
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.files import sealed
from retrieval_prompts.interop.sharing.hub import fetch, hub_name, located, push
from retrieval_prompts.interop.sharing.model_card import model_card
from retrieval_prompts.prompts.folder import PromptFolder, load_prompts, read_description, save_prompts
from retrieval_prompts.towers.text import TextTower

ToyTower = Callable[..., TextTower]
BASE = {"name": "some/bert", "fingerprint": "f" * 64, "dimension": 6, "width": 4}
PROMPTS = PromptFolder("input", {"query": torch.arange(12.0).view(1, 3, 4)}, BASE)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub, and a client that is logged in there with an empty cache."""
    with FakeHub() as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- push and fetch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["input", "prefix"])
def test_what_is_pushed_is_fetched(kind: str, hub: FakeHub, toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    model = BiEncoder(tower).attach("both", kind=kind, length=3)
    model.training_record = {"dataset": "toys"}
    address = model.push_to_hub("me/toy-prompts", base_model="some/bert", commit_message="First")
    assert address == f"{hub.url}/me/toy-prompts/commit/{hub.sha('me/toy-prompts')}"
    assert hub.messages == ["First"]
    assert set(hub.files["me/toy-prompts"]) == {"README.md", "prompt.json", "prompt.safetensors"}
    loaded = BiEncoder.from_hub("me/toy-prompts", model=tower.name, device="cpu")
    assert np.array_equal(loaded.encode_query(TEXTS), model.encode_query(TEXTS))
    assert loaded.training_record == {"dataset": "toys"}
    assert tower.name not in str(hub.files), "no path of this machine is published"
    assert load_prompts(located("hf:me/toy-prompts")).base["name"] == "some/bert"


def test_with_a_stock_checkpoint(hub: FakeHub, toy_tower: ToyTower) -> None:
    model = BiEncoder(toy_tower("bert")).attach("query", length=3)
    model.push_to_hub("me/toy", base_model="some/bert", exported=True)
    stock = SentenceTransformer(huggingface_hub.snapshot_download("me/toy"), device="cpu")
    assert np.abs(stock.encode_query(TEXTS) - model.encode_query(TEXTS)).max() < 1e-6
    card: Any = huggingface_hub.ModelCard(hub.files["me/toy"]["README.md"].decode())
    assert card.data.library_name == "sentence-transformers"
    assert 'SentenceTransformer("me/toy")' in card.text and 'BiEncoder.from_hub("me/toy")' in card.text
    again = BiEncoder.from_hub("me/toy", model=model.tower.name, device="cpu")
    assert np.array_equal(again.encode_query(TEXTS), model.encode_query(TEXTS))


def test_a_stale_checkpoint_is_deleted(hub: FakeHub) -> None:
    def export(folder: Path) -> None:
        (folder / "1_Pooling").mkdir(parents=True)
        for name in ("modules.json", "model.safetensors", "1_Pooling/config.json"):
            (folder / name).write_text("{}")

    push(PROMPTS, "me/toy", export=export)
    ours = {"README.md", "prompt.json", "prompt.safetensors"}
    assert set(hub.files["me/toy"]) == ours | {"modules.json", "model.safetensors", "1_Pooling/config.json"}
    hub.files["me/toy"] |= {"LICENSE": b"", "figure.png": b""}
    push(PROMPTS, "me/toy")
    assert set(hub.files["me/toy"]) == ours | {"LICENSE", "figure.png", "1_Pooling/config.json"}


def test_revisions(hub: FakeHub) -> None:
    push(PROMPTS, "me/toy")
    first = hub.sha("me/toy")
    assert fetch(f"me/toy@{first}").name == fetch("me/toy", revision=first).name == first
    push(replace(PROMPTS, strength=0.5), "me/toy", commit_message="Half")
    assert hub.messages == ["Upload soft prompts", "Half"]
    assert read_description(located("hf:me/toy"))["strength"] == 0.5
    assert read_description(located(f"hf:me/toy@{first}"))["strength"] == 1


def test_a_private_repository(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    push(PROMPTS, "me/secret", private=True)
    assert hub.private == {"me/secret"}
    monkeypatch.delenv("HF_TOKEN")
    assert refusal(fetch, "me/secret") == (
        "there is no repository me/secret on the hub that you may read; check the name, or log in with `hf auth login` "
        "(HF_TOKEN) when it is private"
    )
    assert torch.equal(load_prompts(fetch("me/secret", token=TOKEN)).vectors["query"], PROMPTS.vectors["query"])


def test_without_a_network_what_was_fetched_before(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    push(PROMPTS, "me/toy")
    folder = fetch("me/toy")
    hub.requested.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("me/toy") == folder and hub.requested == []


def test_the_commands(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_prompts(tmp_path / "prompts", PROMPTS)
    push_command(tmp_path / "prompts", "me/toy", private=True, license="apache-2.0", message="Hello")
    assert capsys.readouterr().out.splitlines() == [
        f"{hub.url}/me/toy/commit/{hub.sha('me/toy')}: prompts, with a model card",
        'next: retrieval-prompts search INDEX "a question" --prompts hf:me/toy',
    ]
    assert (hub.private, hub.messages) == ({"me/toy"}, ["Hello"])
    assert b"license: apache-2.0" in hub.files["me/toy"]["README.md"]
    pull("me/toy", tmp_path / "pulled")
    assert capsys.readouterr().out == f"{tmp_path / 'pulled'}: input prompts for the query side of some/bert\n"
    assert (tmp_path / "pulled" / "prompt.json").read_bytes() == (tmp_path / "prompts" / "prompt.json").read_bytes()
    assert "exists already" in refusal(pull, "me/toy", tmp_path / "pulled")


def test_a_checkpoint_beside_a_prefix(hub: FakeHub, tmp_path: Path) -> None:
    save_prompts(tmp_path / "prompts", replace(PROMPTS, kind="prefix"))
    assert refusal(push_command, tmp_path / "prompts", "me/toy", exported=True).startswith(
        "a prefix is keys and values"
    )
    assert hub.requested == []


# --- what strangers put there ---------------------------------------------------------------------------------------


def test_only_known_files_are_fetched(hub: FakeHub) -> None:
    push(PROMPTS, "me/toy")
    hub.files["me/toy"] |= {
        "model.py": b"1 / 0",
        "prompt.json.pkl": b"",
        "deep/prompt.json": b"",
        "../prompt.json": b"",
    }
    folder = fetch("me/toy")
    assert sorted(path.name for path in folder.iterdir()) == ["prompt.json", "prompt.safetensors"]
    asked = {line.split("/")[-1] for line in hub.requested if "/resolve/" in line}
    assert asked == {"prompt.json", "prompt.safetensors"}


def test_changed_vectors_are_refused(hub: FakeHub) -> None:
    push(PROMPTS, "me/toy")
    hub.files["me/toy"]["prompt.safetensors"] = save({"query": torch.zeros(1, 3, 4)})
    assert "prompt.safetensors and prompt.json do not belong together" in refusal(load_prompts, fetch("me/toy"))
    hub.files["me/toy"]["prompt.safetensors"] = b"\x80\x05pickle"
    assert "cannot be read as safetensors" in refusal(load_prompts, fetch("me/toy"))


@pytest.mark.parametrize("name", ["/etc", "../model", "a/b/c"])
def test_a_path_as_a_base_model_is_refused(name: str, hub: FakeHub) -> None:
    push(PROMPTS, "me/toy")
    description = json.loads(hub.files["me/toy"]["prompt.json"])
    description["base"]["name"] = name
    hub.files["me/toy"]["prompt.json"] = json.dumps(sealed(description)).encode()
    assert refusal(located, "hf:me/toy") == (
        f"me/toy on the hub names {name!r} as its base model; expected the name of a model on the hub"
    )


def test_strangers_do_not_choose_whose_code_runs(hub: FakeHub) -> None:
    push(PROMPTS, "me/toy")
    hub.requested.clear()
    expected = "prompts from the hub do not choose whose code runs: with --trust-remote-code pass --model too"
    assert refusal(BiEncoder.load, prompts="hf:me/toy", trust_remote_code=True) == expected
    assert refusal(BiEncoder.from_hub, "me/toy", trust_remote_code=True) == expected
    assert hub.requested == []


def test_a_repository_without_prompts(hub: FakeHub) -> None:
    hub.files["me/other"] = {"config.json": b"{}", "prompt.json": b"{}"}
    assert refusal(fetch, "me/other") == (
        "me/other on the hub holds no prompts: expected prompt.safetensors and prompt.json in it"
    )


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "toy", "me/toy/x", "/me/toy", "../toy", "me/..", "me/a--b", "me/a b", "https://x/y"]
)
def test_names(name: str, hub: FakeHub) -> None:
    expected = f"{name!r} is not the name of a repository on the hub; expected user/name"
    assert refusal(fetch, name) == expected
    assert refusal(push, PROMPTS, name) == expected
    assert hub.requested == []


def test_no_such_repository_or_revision(hub: FakeHub) -> None:
    assert refusal(fetch, "me/toy").startswith("there is no repository me/toy on the hub that you may read; ")
    push(PROMPTS, "me/toy")
    assert refusal(fetch, "me/toy@v2") == "me/toy on the hub has no revision v2"
    assert refusal(push, PROMPTS, "me/toy", revision="v2") == "me/toy on the hub has no revision v2"


def test_no_token_and_a_wrong_one(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert refusal(push, PROMPTS, "me/toy") == (
        "the hub does not let you do this with me/toy: log in with `hf auth login` (HF_TOKEN), with a token that may"
    )
    hub.requested.clear()
    monkeypatch.delenv("HF_TOKEN")
    assert refusal(push, PROMPTS, "me/toy") == (
        "the hub asks who you are: log in with `hf auth login`, or set HF_TOKEN"
    )
    assert hub.requested == [] and hub.files == {}


def test_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for call in (lambda: fetch("me/toy"), lambda: push(PROMPTS, "me/toy")):
        assert refusal(call) == "the hub cannot be reached for me/toy: offline mode is on (HF_HUB_OFFLINE)"


def test_nobody_answers(hub: FakeHub) -> None:
    hub.__exit__()
    for call in (lambda: fetch("me/toy"), lambda: push(PROMPTS, "me/toy")):
        assert refusal(call) == f"the hub cannot be reached for me/toy: no usable answer from {hub.url}"


def test_a_hub_out_of_order(hub: FakeHub) -> None:
    hub.broken = True
    assert refusal(push, PROMPTS, "me/toy").startswith("the hub refused me/toy: ")


def test_a_base_model_in_a_folder(hub: FakeHub, tmp_path: Path) -> None:
    prompts = replace(PROMPTS, base={**BASE, "name": str(tmp_path)})
    assert refusal(push, prompts, "me/toy") == (
        f"these prompts belong to a model in a folder, {tmp_path}; say which model on the hub others should load: "
        "--base-model user/name (base_model=)"
    )
    assert hub.requested == []


def test_names_of_base_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub_name("all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
    assert hub_name("some/bert") == "some/bert" and hub_name("bert-base-uncased") == "bert-base-uncased"
    (tmp_path / "some" / "bert").mkdir(parents=True)
    assert hub_name("some/bert") is None and hub_name(str(tmp_path)) is None and hub_name("./bert") is None


# --- the card -------------------------------------------------------------------------------------------------------

FROZEN, TUNED = {"q1": 0.1, "q2": 0.4, "q3": 0.4}, {"q1": 0.5, "q2": 0.9, "q3": 0.4}
TEST = compare(FROZEN, TUNED, "ndcg@10").as_dict()
RECORD: dict[str, Any] = {
    "dataset": "my_facts | <b>",
    "settings": {"side": "query", "learning_rate": 0.01, "common": False, "temperature": None},
    "train_queries": 30,
    "dev_queries": 8,
    "results": {
        "test": {
            "frozen": {"ndcg@10": 0.3, "mrr@10": 0.25},
            "tuned": {"ndcg@10": 0.6, "mrr@10": 0.512346},
            "bm25": {"ndcg@10": 0.61, "mrr@10": 0.5},
        }
    },
    "tests": {"test": {"tuned_vs_frozen": TEST, "tuned_vs_frozen_unseen_documents": TEST}},
}


def card_of(training: dict[str, Any], **changes: Any) -> Any:
    return huggingface_hub.ModelCard(model_card(replace(PROMPTS, training=training, **changes), "me/toy", "mit"))


def test_the_metadata_of_a_card() -> None:
    data = card_of(RECORD).data
    assert (data.base_model, data.base_model_relation, data.license) == ("some/bert", "adapter", "mit")
    assert (
        data.library_name == "retrieval-prompts"
        and "soft-prompts" in data.tags
        and "sentence-transformers" in data.tags
    )
    found = [(result.metric_type, result.metric_value) for result in data.eval_results]
    assert found == [("ndcg_at_10", 0.6), ("mrr_at_10", 0.51235)]
    first = data.eval_results[0]
    assert (first.dataset_name, first.dataset_split, first.metric_name) == ("my_facts | <b>", "test", "nDCG@10")


def test_the_text_of_a_card() -> None:
    text = card_of(RECORD).text
    assert "[some/bert](https://huggingface.co/some/bert), tuned on my\\_facts \\| \\<b\\>." in text
    assert "It is 3 learned input vectors, 0.0 kB" in text and "an index of them stays valid" in text
    assert 'biencoder = BiEncoder.from_hub("me/toy")' in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert rows[:4] == [
        ["system", "nDCG@10", "MRR@10"],
        ["frozen", "30.0", "25.0"],
        ["tuned", "60.0", "51.2"],
        ["bm25", "61.0", "50.0"],
    ]
    assert "3 queries are too few to tell tuned from frozen: +30.0 points of nDCG@10, but anything from " in text
    assert f"p = {TEST['p_value']:.4f}); better on 2 of 3 queries, worse on 0, the same on 1." in text
    assert "The 3 queries about documents that training had not seen are too few to tell tuned" in text
    assert "The interval is that of a paired bootstrap, p of a permutation test." in text
    assert "BM25 is the best here." in text and "the queries of the table were only reported on" in text
    assert ["learning rate", "0.01"] in rows and ["common", "no"] in rows and ["training queries", "30"] in rows
    assert "temperature" not in text


def test_cards_of_prompts_that_were_not_evaluated() -> None:
    card = card_of({})
    assert card.data.eval_results is None and "Not evaluated when it was made." in card.text
    assert "Imported from PEFT 0.21 PREFIX\\_TUNING." in card_of({"imported": "PEFT 0.21 PREFIX_TUNING"}).text


def test_cards_say_what_the_strength_is() -> None:
    assert "at strength 0 this is that model" in card_of(RECORD, strength=0.0).text
    assert "At strength 0.5" in card_of(RECORD, strength=0.5).text
    assert "strength" not in card_of(RECORD).text


def test_both_sides_and_a_prefix() -> None:
    vectors = {"document": torch.zeros(2, 5, 4), "query": torch.zeros(2, 3, 4)}
    text = card_of(RECORD, vectors=vectors, kind="prefix").text
    assert "A soft prompt for the query and the document side of" in text
    assert "3 and 5 learned keys and values in each layer, 0.3 kB" in text and "stays valid" not in text


@pytest.mark.parametrize("garbled", [{"results": {"test": 3}}, {"tests": {"test": {"x": {}}}}, {"settings": "fast"}])
def test_a_record_that_is_not_ours(garbled: dict[str, Any]) -> None:
    assert refusal(card_of, {**RECORD, **garbled}).startswith(
        "prompt.json has a missing or damaged part in its training record ("
    )
