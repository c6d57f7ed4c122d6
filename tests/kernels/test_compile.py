"""Every launch of every kernel compiles for GPUs: Triton needs none for that, and its interpreter takes more.

A process of its own, because this one interprets: there `run` of a kernel compiles from the types of its arguments, as
a launch would, and starts nothing. Every launch for compute capability 9.0, those that meet bfloat16 for 8.0 as well.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = r"""
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from runner.kernels import formats
from runner.kernels.parts.expert_order import by_expert
from runner.kernels.ops.combine_experts import combine_experts
from runner.kernels.ops.cross_entropy import cross_entropy
from runner.kernels.ops.dequantise import dequantise
from runner.kernels.ops.geglu import geglu
from runner.kernels.ops.grouped_linear import grouped_linear
from runner.kernels.ops.layer_norm import layer_norm
from runner.kernels.ops.linear_cross_entropy import linear_cross_entropy
from runner.kernels.ops.lora_linear import lora_linear
from runner.kernels.ops.paged_attention import paged_attention
from runner.kernels.ops.qk_norm_rope import qk_norm_rope
from runner.kernels.ops.rms_norm import rms_norm
from runner.kernels.ops.rope import rope
from runner.kernels.ops.swiglu import swiglu
from runner.kernels.ops.varlen_attention import varlen_attention
from runner.kernels.quantised import quantise

NAMES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}
NAMES |= {torch.int32: "*i32", torch.uint8: "*u8", torch.int8: "*i8"}
SHARED = {80: 163, 90: 227}  # KiB of one program, by compute capability
compiled = set()


def kind(name, value, constants):
    if name in constants or isinstance(value, int) and value == 1:
        return "constexpr"
    if isinstance(value, torch.Tensor):
        return NAMES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def sixteen(value):
    return isinstance(value, torch.Tensor) or isinstance(value, int) and value % 16 == 0


def run(self, *arguments, grid, warmup, num_warps, num_stages=3, **options):
    values = dict(zip(self.arg_names, arguments)) | options
    constants = {parameter.name for parameter in self.params if parameter.is_constexpr}
    signature = {name: kind(name, values[name], constants) for name in self.arg_names}
    fixed = {(self.arg_names.index(name),): values[name] for name, kind in signature.items() if kind == "constexpr"}
    even = [name for name in self.arg_names if signature[name] != "constexpr" and sixteen(values[name])]
    # without these hints, which a launch gives, loads are narrow and not pipelined
    hints = {(self.arg_names.index(name),): [["tt.divisibility", 16]] for name in even}
    choices = {"num_warps": num_warps, "num_stages": num_stages}
    for capability in SHARED if "*bf16" in signature.values() else (90,):
        source = ASTSource(fn=self, signature=signature, constexprs=fixed, attrs=hints)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=choices)
        assert made.asm["ptx"], self.__name__
        assert made.metadata.shared <= SHARED[capability] * 1024, (self.__name__, capability, made.metadata.shared)
    compiled.add(f"{self.__module__.rpartition('.')[2]}.{self.__name__}")


triton.runtime.jit.JITFunction.run = run


def back(*outputs):
    sum(y.float().sum() for y in outputs).backward()


def made(*shape, dtype=torch.bfloat16):
    return torch.zeros(*shape, dtype=dtype, requires_grad=True)


asked = {"with_triton": True}
for rows, features in ((1, 100), (300, 5000)):
    back(rms_norm(made(rows, features), made(features), **asked))
    back(layer_norm(made(rows, features), made(features), made(features), **asked))
    back(swiglu(made(3, features), made(3, features), **asked))
    back(geglu(made(3, features), made(3, features), **asked))
    back(geglu(made(3, features), made(3, features), tanh=True, **asked))
tables = (torch.zeros(9, 16), torch.zeros(9, 16), torch.zeros(7, dtype=torch.int64))
for heads in (1, 3):
    back(*rope(made(7, 4, 64), made(7, heads, 64), *tables, **asked))
    back(*qk_norm_rope(made(7, 4, 64), made(7, heads, 64), made(64), made(64), *tables, offset=1.0, **asked))
targets = torch.zeros(5, dtype=torch.int64)
for options in ({}, {"softcap": 3.0, "label_smoothing": 0.1, "z_loss": 0.1}):
    for entries in (100, 20_000):
        back(cross_entropy(made(5, entries), targets, **options, **asked))
    back(linear_cross_entropy(made(5, 8), made(100, 8), targets, **options, **asked))
ends = torch.tensor([1, 3, 600], dtype=torch.int32)
for dtype in (torch.bfloat16, torch.float32):
    for tokens in (5, 600):
        x, weight, bias = made(tokens, 96, dtype=dtype), made(3, 80, 96, dtype=dtype), made(3, 80, dtype=dtype)
        back(grouped_linear(x, weight, ends, bias_EN=bias, **asked))
    order = by_expert(torch.zeros(300, 2, dtype=torch.int64), 3)
    y = grouped_linear(made(300, 96), made(3, 96, 80), order.ends, transposed=True, order=order, **asked)
    back(combine_experts(y, made(300, 2), order, **asked))
for name in formats.names():
    for shape in ((3, 40), (200, 1000)):
        dequantise(quantise(made(*shape), name), **asked)
for rows, outputs, dtype, names in (
    (300, 4096, torch.bfloat16, ["nf4"]),
    (1, 4096, torch.bfloat16, ["nf4"]),
    (5, 33, torch.float32, formats.names()),
):
    weight = torch.zeros(outputs, 512, dtype=dtype)
    adapters = (made(16, 512, dtype=torch.float32), made(outputs, 16, dtype=torch.float32))
    more = {"scale": 2.0, "bias": made(outputs, dtype=dtype)}
    back(lora_linear(made(rows, 512, dtype=dtype), weight, *adapters, path="epilogue", **more))
    for name in names:
        back(lora_linear(made(rows, 512, dtype=dtype), quantise(weight, name), *adapters, path="fused", **more))
starts = torch.tensor([0, 9], dtype=torch.int32)
every = {"causal": False, "window": 5, "softcap": 3.0}
for features, dtype, options in (256, torch.bfloat16, {}), (80, torch.float16, every), (63, torch.float32, {}):
    q, k, v = (made(9, heads, features, dtype=dtype) for heads in (8, 2, 2))
    sinks = made(8) if options is every else None
    back(varlen_attention(q, k, v, starts, max_seqlen=4096, sinks_H=sinks, **options, **asked))
with torch.no_grad():
    varlen_attention(made(9, 8, 128), made(9, 2, 128), made(9, 2, 128), starts, max_seqlen=4096, **asked)
    lengths, table = torch.zeros(3, dtype=torch.int32), torch.zeros(3, 64, dtype=torch.int32)
    for features, dtype, sizes in (128, torch.bfloat16, {}), (256, torch.float16, {"window": 50, "softcap": 3.0}):
        q, pages = made(3, 8, features, dtype=dtype), made(5, 16, 2, features, dtype=dtype)
        paged_attention(q, pages, pages, table, lengths, **sizes, **asked)
        paged_attention(q, pages, pages, table[:, :1], lengths, sinks_H=made(8), **sizes, **asked)
print(*sorted(compiled))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="kernels need triton>=3.6")
def test_every_launch_compiles_for_gpus(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    environment["TRITON_DISABLE_LINE_INFO"] = "1"  # nobody debugs these, and LLVM has less to carry along
    words = [sys.executable, "-c", CODE]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = [
        f"{path.stem}.{line.split('(')[0].removeprefix('def ')}"
        for path in (ROOT / "kernels").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("def _") and "kernel(" in line
    ]
    assert set(done.stdout.split()) == set(kernels)
