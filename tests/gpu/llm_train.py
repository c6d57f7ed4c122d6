"""Training steps of a Llama-3.1-8B-shaped model on a GPU: ours, transformers + PEFT, Liger, unsloth. Without ray.

    PYTHONPATH=. python tests/gpu/llm_train.py [--out artifacts/bench] [--minutes 8] [--contenders ours plain]

Seeded weights are made on the device, LoRA (r 16, all linear layers) trains on them in bf16 and on nf4, with activation
checkpointing, on steps of 32,768 tokens of documents of 1k, 8k and 32k, half of each learned. Ours gets them packed in
one row, the others as a batch without padding, which is their best. Forward, backward, clipping and fused AdamW are
timed; the median of the steps after the first counts, whose loss and gradient norm are told. Each contender is in a
process of its own, so that none loses by another's memory or patches. After `--minutes` no other one begins.

Rows go to `<out>/llm_train-<device>.jsonl`: one a contender, precision and length; what could not be had or ran out of
memory is a row with `error`. Unsloth gets the same weights through a folder on the disk, since it loads them itself.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from runner.kernels.bench.harness import machine
from runner.kernels.checkpointing import checkpointed
from runner.kernels.lora import registered
from runner.kernels.patching import FORWARDS, apply
from runner.kernels.quantised import quantise_linears

LLAMA_8B = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}  # fmt: skip
TINY = LLAMA_8B | {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LENGTHS = (1024, 8192, 32768)
TOKENS = 32768  # of a step
STEPS = 4  # the first warms up
CONTENDERS = ("ours", "plain", "liger", "unsloth")
PRECISIONS = ("bf16", "nf4")
Row = dict[str, Any]


def main() -> None:
    """Each contender in turn; rows as they come."""
    args = _arguments()
    began = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    identity = machine.identity(machine.ceilings() if device == "cuda" else None)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"llm_train-{machine.slug(identity['device'])}.jsonl"
    context = multiprocessing.get_context("spawn")
    for precision in PRECISIONS:
        for contender in args.contenders:
            left = 60 * args.minutes - (time.monotonic() - began)
            what = {"contender": contender, "precision": precision}
            if left <= 0:
                rows = [what | {"error": f"not begun: {args.minutes} minutes were over"}]
            else:
                mine, theirs = context.Pipe()
                size = {"tiny": args.tiny, "device": device}
                process = context.Process(target=_in_a_process, args=(theirs, contender, precision, size))
                process.start()
                theirs.close()
                rows = list(_heard(mine, left=left, what=what))
                process.kill()
                process.join()
            with path.open("a", encoding="utf-8") as out:
                for row in rows:
                    out.write(json.dumps(row | identity) + "\n")
                    print(shown(row), flush=True)
    print(f"{time.monotonic() - began:.0f} s; rows are in {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("artifacts/bench"), help="folder for the rows")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--tiny", action="store_true", help="a tiny model and short documents: to see that it runs")
    return parser.parse_args()


def _heard(link: Any, *, left: float, what: Row) -> Iterator[Row]:
    """Rows of a contender until it has no more, or its time is over."""
    ends = time.monotonic() + left
    while True:
        try:
            if not link.poll(max(0.0, ends - time.monotonic())):
                yield what | {"error": "stopped: the time was over"}
                return
            row = link.recv()
        except EOFError:
            yield what | {"error": "its process died"}
            return
        if row is None:
            return
        yield row


def _in_a_process(link: Any, contender: str, precision: str, size: Row) -> None:
    for row in rows_of(contender, precision, tiny=size["tiny"], device=size["device"]):
        link.send(row)
    link.send(None)


def rows_of(contender: str, precision: str, *, tiny: bool, device: str) -> Iterator[Row]:
    """One contender at every length."""
    what = {"contender": contender, "precision": precision}
    lengths, tokens = ((16, 64), 128) if tiny else (LENGTHS, TOKENS)
    shape = TINY if tiny else LLAMA_8B
    try:
        model, notes = MAKE[contender](shape, precision, device)
    except Exception as error:  # what a peer cannot do is a row, whatever its reason
        yield what | {"error": f"{type(error).__name__}: {error}"[:500]}
        return
    model.train()
    for length in lengths:
        row = what | {"length": length, "documents": tokens // length, "tokens": tokens, "notes": notes}
        batch = documents(length, tokens // length, words=shape["vocab_size"], packed=contender == "ours")
        fields = {name: one.to(device) if isinstance(one, Tensor) else one for name, one in batch.items()}
        try:
            yield row | timed(model, fields, device=device, tokens=tokens)
        except torch.OutOfMemoryError:
            for one in model.parameters():
                one.grad = None
            torch.cuda.empty_cache()
            yield row | {"error": "out of memory"}


def documents(length: int, count: int, *, words: int, packed: bool) -> Row:
    """The same documents as one packed row or as a batch; the second half of each is learned."""
    random = torch.Generator().manual_seed(length)
    ids = torch.randint(0, words, (count, length), generator=random)
    labels = ids.masked_fill(torch.arange(length) < length // 2, -100)
    if not packed:
        return {"input_ids": ids, "labels": labels, "use_cache": False}
    edges = torch.arange(0, (count + 1) * length, length, dtype=torch.int32)
    return {
        "input_ids": ids.reshape(1, -1),
        "labels": labels.reshape(1, -1),
        "position_ids": torch.arange(length).repeat(count)[None],
        "cu_seq_lens_q": edges,
        "cu_seq_lens_k": edges,
        "max_length_q": length,
        "max_length_k": length,
        "use_cache": False,
    }


def timed(model: Any, fields: Row, *, device: str, tokens: int) -> Row:
    """Steps on one batch: their median, memory, and loss and gradient norm of the first."""
    trained = [one for one in model.parameters() if one.requires_grad]
    before = [one.detach().clone() for one in trained]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if device == "cuda" else 0
    seconds, first = [], {}
    for number in range(STEPS):
        wait()
        began = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(**fields).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait()
        seconds.append(time.perf_counter() - began)
        if not number:
            first = {"loss": float(loss.detach()), "grad_norm": float(norm)}
    with torch.no_grad():
        for one, was in zip(trained, before, strict=True):
            one.copy_(was)  # the next length begins with the same weights
    took = statistics.median(seconds[1:])
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return first | {
        "tokens_per_s": tokens / took,
        "step_s": took,
        "first_step_s": seconds[0],  # with compilation
        "weights_gb": held / 1e9,
        "peak_gb": peak / 1e9,
    }


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

    with tempfile.TemporaryDirectory() as folder:
        base(shape, device).save_pretrained(folder)
        torch.cuda.empty_cache()
        model, _ = FastLanguageModel.from_pretrained(
            folder, max_seq_length=max(LENGTHS), dtype=torch.bfloat16, load_in_4bit=precision == "nf4"
        )
    model = FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=32, target_modules=LINEAR, use_gradient_checkpointing="unsloth", random_state=0
    )
    return model, {"loss and gradient norm": "of its own adapters' weights"}


def in_four_bits(model: Any) -> None:
    """bitsandbytes' nf4 in the place of every linear layer but the head, one at a time."""
    import bitsandbytes

    for name, linear in list(model.named_modules()):
        if type(linear) is nn.Linear and not name.endswith("lm_head"):
            made = bitsandbytes.nn.Linear4bit(
                linear.in_features, linear.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
            )
            weight = linear.weight.data
            made.weight = bitsandbytes.nn.Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4")
            model.set_submodule(name, made.to(weight.device))
    model.is_loaded_in_4bit = True


def shown(row: Row) -> str:
    """A row for people."""
    head = f"{row['contender']:<8} {row['precision']:<5} {row.get('length', ''):>6}"
    if "error" in row:
        return f"{head}  {row['error']}"
    return (
        f"{head}  {row['tokens_per_s']:9.0f} tokens/s  {row['peak_gb']:6.1f} GB  loss {row['loss']:.4f}  gradient norm "
        f"{row['grad_norm']:.4f}"
    )


MAKE: dict[str, Callable[[Row, str, str], tuple[Any, Row]]] = {
    "ours": ours,
    "plain": plain,
    "liger": liger,
    "unsloth": unsloth,
}

if __name__ == "__main__":
    main()
