"""What `tests/gpu/llm_train.py` trains: a Llama of the shape of 8B, or a tiny one, as each contender has it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from runner.kernels.checkpointing import checkpointed
from runner.kernels.lora import registered
from runner.kernels.patching import FORWARDS, apply
from runner.kernels.quantised import quantise_linears
from tests.bench.llm_mix import tokenizer

LLAMA_8B = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
TINY = LLAMA_8B | {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Row = dict[str, Any]


def base(shape: Row, device: str, *, attention: str = "sdpa") -> Any:
    """Seeded weights in bf16, made where they are used."""
    torch.manual_seed(0)
    with torch.device(device):
        made = LlamaForCausalLM._from_config(LlamaConfig(**shape), dtype=torch.bfloat16, attn_implementation=attention)
    made.config.use_cache = False
    return made


def adapted(model: Any) -> Any:
    """With adapters of the same weights for everyone; B is not 0, so that A learns from the first step, too."""
    config = LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR, task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(model, registered(config))
    random = torch.Generator().manual_seed(1)
    for name, one in sorted(model.named_parameters()):
        if "lora_" in name:
            one.data = (torch.randn(one.shape, generator=random) * 0.01).to(one.device)
    return model


def ours(shape: Row, precision: str, device: str) -> tuple[Any, Row]:
    """Every patch that fits, packed rows."""
    model = base(shape, device)
    if precision == "nf4":
        quantise_linears(model, "nf4")
    model = adapted(model)
    applied = apply(
        model, dict.fromkeys(set(FORWARDS) - {"qk_norm_rope", "experts", "layer_norm", "geglu"}, "preferred")
    )
    checkpointed(model, offload=False)
    lines = [f"{line.what}: {'on' if line.applied else line.why}" for line in applied.ledger.lines]
    return model, {"patches": sorted(lines)}


def plain(shape: Row, precision: str, device: str) -> tuple[Any, Row]:
    """transformers and PEFT, with FlashAttention 2 where it imports, else SDPA, which has a flash kernel of its own."""
    attention = "flash_attention_2" if device == "cuda" and find_spec("flash_attn") else "sdpa"
    model = base(shape, device, attention=attention)
    if precision == "nf4":
        in_four_bits(model)
    model = adapted(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model, {"attention": attention}


def liger(shape: Row, precision: str, device: str) -> tuple[Any, Row]:
    """The same with Liger's kernels."""
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    apply_liger_kernel_to_llama()
    return plain(shape, precision, device)


def unsloth(shape: Row, precision: str, device: str) -> tuple[Any, Row]:
    """Its own loader, adapters and checkpointing."""
    from unsloth import FastLanguageModel  # it patches transformers and must come before a model is loaded

    with tempfile.TemporaryDirectory() as name:
        folder = saved(shape, device, Path(name))
        if device == "cuda":
            torch.cuda.empty_cache()
        model, _ = FastLanguageModel.from_pretrained(
            str(folder), max_seq_length=32768, dtype=torch.bfloat16, load_in_4bit=precision == "nf4"
        )
    model = FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=32, target_modules=LINEAR, use_gradient_checkpointing="unsloth", random_state=0
    )
    return model, {"loss and gradient norm": "of its own adapters' weights"}


def saved(shape: Row, device: str, folder: Path) -> Path:
    """The same weights as a folder that a loader takes: with a tokenizer of as many words."""
    base(shape, device).save_pretrained(folder)
    tokenizer(shape["vocab_size"]).save_pretrained(folder)
    return folder


def in_four_bits(model: Any) -> None:
    """bitsandbytes' nf4 in the place of every linear layer but the head, one at a time.

    A layer is made without memory: drawing 7e9 weights that are thrown away takes half a minute on a CPU.
    """
    import bitsandbytes

    for name, linear in list(model.named_modules()):
        if type(linear) is nn.Linear and not name.endswith("lm_head"):
            with torch.device("meta"):
                made = bitsandbytes.nn.Linear4bit(
                    linear.in_features, linear.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
                )
            weight = linear.weight.data
            made.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=made)
            model.set_submodule(name, made.to(weight.device))  # which quantises
    model.is_loaded_in_4bit = True


MAKE: dict[str, Callable[[Row, str, str], tuple[Any, Row]]] = {
    "ours": ours,
    "plain": plain,
    "liger": liger,
    "unsloth": unsloth,
}
