"""PEFT adapters: the same numbers in both directions, proved with PEFT's own encoder and forward; and what differs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import TEXTS
from transformers import AutoModel

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.cli.commands.sharing.convert import convert
from retrieval_prompts.errors import UserError
from retrieval_prompts.interop.peft import read_adapter, write_adapter
from retrieval_prompts.prompts.encoders import PromptTable
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.towers.text import TextTower

peft: Any = pytest.importorskip("peft", reason="PEFT is not installed")

Toy = Callable[..., Path]
ToyTower = Callable[..., TextTower]
P = 3
TASK = {"num_virtual_tokens": P, "task_type": "FEATURE_EXTRACTION"}
CONFIGS: dict[str, Callable[[], Any]] = {
    "prompt tuning": lambda: peft.PromptTuningConfig(**TASK),
    "p-tuning": lambda: peft.PromptEncoderConfig(**TASK, encoder_hidden_size=8),
    "prefix tuning": lambda: peft.PrefixTuningConfig(**TASK),
    "projected prefix": lambda: peft.PrefixTuningConfig(**TASK, prefix_projection=True, encoder_hidden_size=8),
}
# PEFT and transformers do not agree yet on what a few arguments are called
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning"),
]
ELSEWHERE = "the vectors are the same, the embeddings .* are not; evaluate again"


def base(folder: Path | str) -> Any:
    return AutoModel.from_pretrained(folder).eval()


def adapter(folder: Path, model: Path, config: str) -> Any:
    """A PEFT model with random prompts, saved in `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = peft.get_peft_model(base(model), CONFIGS[config]()).eval()
    made.save_pretrained(folder)
    return made


def peft_layers(model: Any) -> torch.Tensor:
    """PEFT's prefix as its model gets it -> (layers, P, 2 * heads * head_dim), keys first."""
    layers = model.get_prompt(1).layers  # keys and values (1, heads, P, head_dim)
    rows = [[part[0].transpose(0, 1).flatten(1) for part in (layer.keys, layer.values)] for layer in layers]
    return torch.stack([torch.cat(row, dim=1) for row in rows]).detach()


@pytest.mark.parametrize("config", ["prompt tuning", "p-tuning"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "qwen3"])
def test_input_vectors_are_those_that_peft_concatenates(
    architecture: str, config: str, toy: Toy, toy_tower: ToyTower, tmp_path: Path
) -> None:
    theirs = adapter(tmp_path / "adapter", toy(architecture), config)
    tower = toy_tower(architecture)
    with warns(tower.lead > 0):
        ours = read_adapter(tmp_path / "adapter", tower, "document")
    assert ours.kind == "input" and set(ours.vectors) == {"document"}
    assert torch.equal(ours.vectors["document"], theirs.get_prompt(1).detach())
    assert ours.base["fingerprint"] == tower.fingerprint and ours.strength == 1


@pytest.mark.parametrize("config", ["prefix tuning", "projected prefix"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "qwen3"])
def test_prefix_vectors_are_the_keys_and_values_of_peft(
    architecture: str, config: str, toy: Toy, toy_tower: ToyTower, tmp_path: Path
) -> None:
    theirs = adapter(tmp_path / "adapter", toy(architecture), config)
    with warns(True):
        ours = read_adapter(tmp_path / "adapter", toy_tower(architecture))
    assert ours.kind == "prefix" and set(ours.vectors) == {"query"}
    assert torch.equal(ours.vectors["query"], peft_layers(theirs))


def warns(expected: bool) -> Any:
    if expected:
        return pytest.warns(UserWarning, match=ELSEWHERE)
    return warnings.catch_warnings()  # any warning is an error


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "mpnet", "modernbert", "qwen3"])
def test_peft_loads_what_is_written(
    architecture: str, kind: str, toy: Toy, toy_tower: ToyTower, tmp_path: Path
) -> None:
    tower = toy_tower(architecture)
    model = BiEncoder(tower).attach("both", kind=kind, length=P, init="gaussian")
    with warns(kind == "prefix" or tower.lead > 0):
        write_adapter(model, tmp_path / "adapter", "document")
    theirs = peft.PeftModel.from_pretrained(base(toy(architecture)), tmp_path / "adapter")
    loaded = peft_layers(theirs) if kind == "prefix" else theirs.get_prompt(1).detach()
    assert torch.equal(loaded, model.prompt("document").detach())  # type: ignore[union-attr]
    with warns(kind == "prefix" or tower.lead > 0):
        again = read_adapter(tmp_path / "adapter", tower, "document")
    assert torch.equal(again.vectors["document"], loaded)


# --- what a model makes of them -------------------------------------------------------------------------------------


def forward(model: Any, tower: TextTower, text: str, kind: str) -> np.ndarray:
    """PEFT's own forward of one text, pooled by the mean over all positions and normalised."""
    tokens = torch.tensor(tower.tokenize([text], "query"))
    with torch.no_grad():
        states = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    assert states.shape[1] == tokens.shape[1] + P * (kind == "input")
    return torch.nn.functional.normalize(states.mean(dim=1))[0].numpy()


def positions(model: Any) -> torch.nn.Embedding:
    return model.embeddings.position_embeddings


def both(tower: TextTower, kind: str, folder: Path, change: Callable[[Any], object]) -> tuple[Any, Any]:
    """Embeddings of the texts by us and by PEFT with one prompt; `change` is done to PEFT's base model."""
    model = BiEncoder(tower).attach("query", kind=kind, length=P, init="gaussian")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        write_adapter(model, folder)
    network = base(tower.name)
    with torch.no_grad():
        change(network)
    theirs = peft.PeftModel.from_pretrained(network, folder).eval()
    texts = [text for text in TEXTS if len(tower.tokenize([text], "query")[0]) <= 20]
    return model.encode_query(texts), np.stack([forward(theirs, tower, text, kind) for text in texts])


def test_a_prefix_gives_the_same_embeddings_where_positions_are_the_same(toy_tower: ToyTower, tmp_path: Path) -> None:
    def shift(network: Any) -> None:  # position p + P gets what p has, so PEFT's text stands where ours does
        table = positions(network).weight
        table[P:] = table[:-P].clone()

    ours, theirs = both(toy_tower("bert"), "prefix", tmp_path / "same", shift)
    assert np.abs(ours - theirs).max() < 1e-6
    ours, theirs = both(toy_tower("bert"), "prefix", tmp_path / "shifted", lambda network: None)
    assert np.abs(ours - theirs).max() > 1e-3, "PEFT counts positions from P"


def test_input_vectors_before_cls_and_after_it(toy_tower: ToyTower, tmp_path: Path) -> None:
    ours, theirs = both(toy_tower("bert"), "input", tmp_path / "as is", lambda network: None)
    assert np.abs(ours - theirs).max() > 1e-3
    # A model without positions, which pools the mean, cannot tell where they stand
    tower = toy_tower("bert")
    with torch.no_grad():
        positions(tower.model).weight.zero_()
    ours, theirs = both(tower, "input", tmp_path / "no positions", lambda net: positions(net).weight.zero_())
    assert np.abs(ours - theirs).max() < 1e-6


def test_input_vectors_of_a_model_without_leading_tokens(toy_tower: ToyTower, tmp_path: Path) -> None:
    ours, theirs = both(toy_tower("qwen3", pooling="mean"), "input", tmp_path / "adapter", lambda network: None)
    assert np.abs(ours - theirs).max() < 1e-6


def test_vectors_of_a_model_that_scales_its_embeddings(toy_tower: ToyTower, tmp_path: Path) -> None:
    # As Gemma does: PEFT's vectors are scaled already, ours are rows of the table
    tower = toy_tower("qwen3")
    tower.embeddings.embed_scale = torch.tensor(4.0)
    model = BiEncoder(tower, "input", {"query": PromptTable(tower.embeddings.weight[5 : 5 + P][None])})
    write_adapter(model, tmp_path / "adapter")
    ours = model.prompt("query").detach()  # type: ignore[union-attr]
    assert torch.equal(load_file(tmp_path / "adapter" / "adapter_model.safetensors")["prompt_embeddings"], 4 * ours[0])
    assert torch.equal(read_adapter(tmp_path / "adapter", tower).vectors["query"], ours)


# --- the command, and what is refused -------------------------------------------------------------------------------


def test_the_command_converts_in_both_directions(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = adapter(tmp_path / "adapter", toy("bert"), "prompt tuning")
    with pytest.warns(UserWarning, match=ELSEWHERE):
        convert(tmp_path / "adapter", tmp_path / "prompts", side="document")
    loaded = load_prompts(tmp_path / "prompts")
    assert torch.equal(loaded.vectors["document"], theirs.get_prompt(1).detach())
    assert loaded.training == {"imported": f"PEFT {peft.__version__} PROMPT_TUNING"}
    with pytest.warns(UserWarning, match=ELSEWHERE):
        convert(tmp_path / "prompts", tmp_path / "again")
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("adapter", "again"))
    assert torch.equal(first["prompt_embeddings"], second["prompt_embeddings"])
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'prompts'}: input prompts for the document side of {toy('bert')}",
        f"{tmp_path / 'again'}: a PEFT adapter",
        f'next: peft.PeftModel.from_pretrained(AutoModel.from_pretrained("{toy("bert")}"), "{tmp_path / "again"}")',
    ]


@pytest.mark.parametrize("config", ["PromptTuningConfig", "PromptEncoderConfig", "PrefixTuningConfig"])
def test_the_prompt_of_a_classifier_is_taken_without_its_head(
    config: str, toy: Toy, toy_tower: ToyTower, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(toy("qwen3"), num_labels=2)
    theirs = peft.get_peft_model(network, getattr(peft, config)(num_virtual_tokens=P, task_type="SEQ_CLS")).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    head = [name for name in load_file(weights) if name != "prompt_embeddings"]
    assert len(head) == 1 and "score" in head[0]
    with pytest.warns(UserWarning) as said:
        ours = read_adapter(tmp_path / "adapter", toy_tower("qwen3"))
    assert str(said[0].message) == (
        f"{weights}: the prompt is taken, and what was trained beside it is left out, such as the head of a "
        f"classifier: {head[0]}"
    )
    prefix = config == "PrefixTuningConfig"
    expected = peft_layers(theirs) if prefix else theirs.get_prompt(1).detach()
    assert torch.equal(ours.vectors["query"], expected)
    assert set(ours.vectors) == {"query"} and len(said) == 1 + prefix


@pytest.fixture
def folder(toy: Toy, tmp_path: Path) -> Path:
    adapter(tmp_path / "adapter", toy("bert"), "prompt tuning")
    return tmp_path / "adapter"


def refusal(folder: Path, tower: TextTower, side: str = "query") -> str:
    with pytest.raises(UserError) as error:
        read_adapter(folder, tower, side)
    assert "\n" not in str(error.value)
    return str(error.value)


def change(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_other_adapters(folder: Path, toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    change(folder, num_transformer_submodules=2)
    assert refusal(folder, tower) == (
        f"{folder / 'adapter_config.json'}: these prompts are for an encoder and a decoder; expected a single encoder"
    )
    change(folder, peft_type="LORA")
    assert refusal(folder, tower) == (
        f"{folder / 'adapter_config.json'}: expected a peft_type of PROMPT_TUNING, P_TUNING, PREFIX_TUNING, got 'LORA'"
    )
    change(folder, peft_type=["PROMPT_TUNING"])
    assert refusal(folder, tower).endswith(", got ['PROMPT_TUNING']")
    assert refusal(folder.parent, tower) == (
        f"{folder.parent} is not a PEFT adapter: expected adapter_config.json and adapter_model.safetensors in it"
    )
    assert refusal(folder, tower, "both") == "--side must be query or document, got 'both'"


def test_the_model_of_an_adapter(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^an adapter does not choose whose code runs: with --trust-remote-code pass"):
        convert(folder, tmp_path / "prompts", trust_remote_code=True)
    change(folder, base_model_name_or_path=None)
    with pytest.raises(UserError, match=r"does not say which model it belongs to: pass --model$"):
        convert(folder, tmp_path / "prompts")


def test_weights_that_are_not_read(folder: Path, toy_tower: ToyTower) -> None:
    tower, weights = toy_tower("bert"), folder / "adapter_model.safetensors"
    save_file({"classifier.bias": torch.zeros(2), "classifier.weight": torch.zeros(2, 32)}, weights)
    assert refusal(folder, tower) == (
        f"{weights}: expected one matrix 'prompt_embeddings', got classifier.bias, classifier.weight"
    )
    save_file({"prompt_embeddings": torch.zeros(32)}, weights)
    assert refusal(folder, tower) == f"{weights}: expected one matrix 'prompt_embeddings', got prompt_embeddings"
    save_file({"prompt_embeddings": torch.zeros(P, 31)}, weights)
    assert refusal(folder, tower) == (
        f"{weights}: its vectors have 31 numbers, and model {tower.name} takes 32; give the model that it was trained "
        f"on ({tower.name})"
    )
    weights.write_bytes(b"\x80\x05pickle")
    assert refusal(folder, tower).startswith(f"{weights} cannot be read as safetensors (")
    weights.rename(folder / "adapter_model.bin")
    assert refusal(folder, tower) == (
        f"{folder} has no adapter_model.safetensors; adapter_model.bin may run code when it is read: save it again as "
        "safetensors"
    )


def test_prompts_that_peft_cannot_hold(toy_tower: ToyTower, tmp_path: Path) -> None:
    def refuse(**options: Any) -> str:
        with pytest.raises(UserError) as error:
            write_adapter(model, tmp_path / "adapter", **options)
        assert not (tmp_path / "adapter").exists()
        return str(error.value)

    model = BiEncoder(toy_tower("qwen3")).attach("both", length=P)
    assert refuse() == "a PEFT adapter holds the prompt of one side: pass --side, query or document"
    model.strength = 0.5
    assert refuse(side="query") == "these prompts have strength 0.5, and PEFT knows whole prompts only"
    model.strength = 1
    write_adapter(model, tmp_path / "adapter", "query")
    with pytest.raises(UserError, match="exists already"):
        write_adapter(model, tmp_path / "adapter", "query")
    write_adapter(model, tmp_path / "adapter", "document", overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter"]
