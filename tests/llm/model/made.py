"""Tiny models in folders with a tokenizer, and what the registry says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from runner.llm.model import begin, vocabulary
from runner.llm.model.prepared import Prepared
from runner.llm.packing import form
from runner.precision import Precision
from runner.registry.recognise import families
from runner.registry.resolve import resolve
from tests.registry import tiny_llm

CAUSAL = sorted(name for name in tiny_llm.MODELS if families()[name].task == "causal")
IMAGES = sorted(name for name in tiny_llm.MODELS if families()[name].task == "image-text")
ALL = {"attention": "preferred", "kernels": "preferred", "loss_chunking": "preferred", "quantised_lora": "preferred"}
OFF = dict.fromkeys(ALL, "off")
FP32 = Precision(name="fp32", why="a test")
BF16 = Precision(name="bf16", why="a test")


def tokenizer(words: int = 40) -> Any:
    """One token a word: w3 is 3; the first three are special."""
    names = {f"w{i}": i for i in range(3, words)} | {"<pad>": 0, "<bos>": 1, "<eos>": 2}
    made = Tokenizer(models.WordLevel(names, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def folder(path: Path, family: str, **changes: Any) -> Path:
    """The tiny model of ``family``, saved."""
    tiny_llm.model(family, **changes).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def prepared(path: Path, **given: Any) -> Prepared:
    """The model in ``path``, prepared in fp32 with all that it can have unless told otherwise."""
    found = resolve(str(path), folder=path)
    add = given.pop("add", ())
    opened, added = vocabulary.open(path, add=add) if add else (tokenizer(), ())
    usual: dict[str, Any] = {"precision": FP32, "optimize": ALL, "seq_len": 64, "tokenizer": opened, "added": added}
    return begin.prepare(path, facts=found.facts, family=found.family, **usual | given)


def packed(*lengths: int, seed: int = 0) -> dict[str, Any]:
    """One row of documents of these lengths, all of it learned but their first tokens."""
    torch.manual_seed(seed)
    ids = torch.randint(3, 40, (1, sum(lengths)))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    edges = torch.tensor([0, *lengths]).cumsum(0).int()
    return {
        "input_ids": ids,
        "position_ids": positions,
        "labels": ids.masked_fill(positions == 0, -100),
        "cu_seq_lens_q": edges,
        "cu_seq_lens_k": edges,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        "use_cache": False,
    }


def for_axes(batch: dict[str, Any], config: Any) -> dict[str, Any]:
    """With as many axes of positions as a model with that config wants."""
    axes = form.position_axes(config)
    return batch if axes == 1 else batch | {"position_ids": batch["position_ids"].repeat(axes, 1, 1)}


def padded(*lengths: int) -> dict[str, Any]:
    """Documents of these lengths in a row each."""
    rows = [packed(length, seed=length)["input_ids"][0] for length in lengths]
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "use_cache": False}
