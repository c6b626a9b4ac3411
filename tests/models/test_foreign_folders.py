"""Model folders as other tools leave them: read as transformers reads them, or refused by name."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from miniserve.config import CacheConfig, EngineConfig
from miniserve.engine.engine import load_engine
from miniserve.errors import WeightsError
from miniserve.models.folder import check_folder
from miniserve.models.model_config import read_eos_ids
from miniserve.models.tiny import CHAT_TEMPLATE
from miniserve.models.tokenizer import Tokenizer
from miniserve.models.values import check_stored_model
from miniserve.types import Request, SamplingParams

Change = Callable[[Path], None]
MESSAGES = [
    {"role": "user", "content": "the other one"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "hi"},
]
SMALL = EngineConfig(cache=CacheConfig(num_blocks=32), threads=1)
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed: nothing to compare with"
)


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def config(**values: Any) -> Change:
    return lambda folder: edited(folder / "config.json", lambda c: c.update(values))


def settings(**values: Any) -> Change:
    return lambda folder: edited(folder / "tokenizer_config.json", lambda c: c.update(values))


def weights(change: Callable[[dict[str, np.ndarray]], object]) -> Change:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def both(*changes: Change) -> Change:
    def apply(folder: Path) -> None:
        for change in changes:
            change(folder)

    return apply


def adds_bos(folder: Path) -> None:
    def change(tokenizer: dict[str, Any]) -> None:
        bos = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
        one, other = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [bos, one],
            "pair": [bos, one, other],
            "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
        }

    edited(folder / "tokenizer.json", change)


def eos_in_config_only(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    config(eos_token_id=2)(folder)


def jinja_file(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("\\n", "\\n\\n"), encoding="utf-8")


GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FOLDERS: dict[str, Change] = {
    "as written": lambda folder: None,
    "tied by name, head of its own": config(tie_word_embeddings=True),
    "tied, head a copy": both(
        config(tie_word_embeddings=True),
        weights(lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()})),
    ),
    "tied, no head": both(config(tie_word_embeddings=True), weights(lambda t: t.pop("lm_head.weight"))),
    "beginning-of-sequence token": adds_bos,
    "template with the year": settings(chat_template="{{ strftime_now('%Y') }}" + CHAT_TEMPLATE),
    "template with generation tags": settings(chat_template=GENERATION),
    "template in its own file": jinja_file,
    "end in config.json only": eos_in_config_only,
    "half precision": weights(lambda t: t.update({name: w.astype(np.float16) for name, w in t.items()})),
    "old rope buffers": weights(
        lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)})
    ),
}


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "foreign"))


@needs_transformers
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_means_what_it_means_to_transformers(folder: Path, name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    FOLDERS[name](folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.load(folder)
    assert ours.encode("the other one") == theirs("the other one").input_ids
    chat = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert ours.encode_chat(MESSAGES) == chat

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    declared = model.generation_config.eos_token_id
    assert set([declared] if isinstance(declared, int) else declared) <= set(ours.eos_ids)
    sampling = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    (got,) = load_engine(folder, quant="fp32", config=SMALL).run([Request("q", "m", tuple(chat), sampling)]).values()
    ids = list(chat)
    with torch.inference_mode():
        for _ in range(8):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert got == ids[len(chat) :]


def test_a_template_that_asks_for_the_date_gets_it(folder: Path) -> None:
    settings(chat_template="{{ 'Today: ' + strftime_now('%Y') }}" + CHAT_TEMPLATE)(folder)
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.decode(tokenizer.encode_chat(MESSAGES)).startswith(f"Today: {datetime.now():%Y}")


def test_a_chat_has_one_beginning_however_often_it_could_be_added(folder: Path) -> None:
    adds_bos(folder)
    settings(chat_template="{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}")(folder)
    assert Tokenizer.load(folder).encode_chat(MESSAGES).count(1) == 1


@pytest.mark.parametrize(
    ("generation", "own", "token", "ids"),
    [
        ({"eos_token_id": [2]}, 0, "<|im_end|>", (2,)),
        ({"eos_token_id": 0}, 2, "<|im_end|>", (0, 2)),
        ({}, 0, {"content": "<|im_end|>"}, (0, 2)),
        (None, [0], "<|endoftext|>", (0,)),
        (None, None, "<|im_end|>", (2,)),
        (None, None, None, ()),
    ],
)
def test_every_file_that_names_an_end_is_heard(
    folder: Path, generation: dict[str, Any] | None, own: Any, token: Any, ids: tuple[int, ...]
) -> None:
    (folder / "generation_config.json").unlink()
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    both(config(eos_token_id=own), settings(eos_token=token))(folder)
    assert read_eos_ids(folder) == ids
    assert Tokenizer.load(folder).eos_ids == ids


# --- refused at load -----------------------------------------------------------------------------------------------


def one_token_more(folder: Path) -> None:
    token = {"id": 273, "content": "<PAD>", "single_word": False, "lstrip": False, "rstrip": False}
    edited(
        folder / "tokenizer.json",
        lambda t: t["added_tokens"].append({**token, "normalized": False, "special": False}),
    )


def number(value: float, tensor: str) -> Change:
    return weights(lambda t: t[tensor].reshape(-1).__setitem__(3, value))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (one_token_more, "the tokenizer has 274 tokens, but the embedding 273 rows"),
        (number(np.nan, "model.norm.weight"), r"tensor model\.norm\.weight holds nan"),
        (number(np.inf, "lm_head.weight"), r"tensor lm_head\.weight holds an infinity"),
        (number(-np.inf, "model.layers.1.mlp.up_proj.weight"), r"layers\.1\.mlp\.up_proj\.weight holds an infinity"),
        (
            both(
                lambda folder: edited(folder / "config.json", lambda c: c.pop("tie_word_embeddings")),
                weights(lambda t: t.pop("lm_head.weight")),
            ),
            r"lm_head\.weight of shape \[273, 64\] is missing \(a head tied to the embedding needs tie_word_embeddings",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_at_load_and_by_weights_verify(
    folder: Path, change: Change, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from miniserve.__main__ import main

    change(folder)
    with pytest.raises(WeightsError, match=says):
        load_engine(folder, quant="fp32", config=SMALL)
    assert main(["weights", "verify", str(folder)]) != 0
    seen = capsys.readouterr()
    assert says.split(r"\.")[-1].split(" (")[0].split(r" \(")[0].split(" of shape")[0] in seen.out + seen.err


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_no_number_is_found_in_every_kind_of_float(folder: Path, kind: Any) -> None:
    weights(lambda t: t.update({name: w.astype(kind) for name, w in t.items()}))(folder)
    _, largest = check_stored_model(folder)
    tensors = load_file(folder / "model.safetensors")
    assert largest == {name: float(np.abs(w).max()) for name, w in tensors.items()}
    number(np.nan, "model.embed_tokens.weight")(folder)
    with pytest.raises(WeightsError, match="embed_tokens"):
        check_stored_model(folder)


def test_bfloat16_is_looked_into_as_well(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    tensors = {name: w.bfloat16() for name, w in load_torch(folder / "model.safetensors").items()}
    save_torch(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _, largest = check_stored_model(folder)
    assert largest["model.norm.weight"] == float(tensors["model.norm.weight"].abs().max())
    tensors["model.norm.weight"][5] = torch.nan
    save_torch(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"model\.norm\.weight holds nan"):
        check_stored_model(folder)


@pytest.mark.parametrize("tensor", ["model.norm.weight", "lm_head.weight", "model.layers.0.self_attn.o_proj.weight"])
def test_weights_beyond_fp16_are_kept_in_fp32_or_refused_by_name(folder: Path, tensor: str) -> None:
    number(1e5, tensor)(folder)
    check_folder(folder)
    asked = [Request("q", "m", (5, 6, 7), SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True))]
    exact = load_engine(folder, quant="fp32", config=SMALL).run(asked)
    assert load_engine(folder, quant="fp16", config=SMALL).run(asked) == exact
    with pytest.raises(WeightsError, match=r"holds 100000, more than fp16 can \(65504\); use --quant fp32"):
        load_engine(folder, quant="fp16-plain", config=SMALL)
