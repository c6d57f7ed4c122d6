"""What every kernel shares with its launch: is there Triton, shall it be taken, how large are the blocks.

Triton is optional: without it the modules of ``ops`` import as ever and their functions take the reference.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:  # there is none for some systems, and a CPU build of torch comes without
    triton = tl = None

__all__ = [
    "PROGRAMS",
    "as_rows",
    "divide_up",
    "interpreted",
    "jit",
    "launch",
    "power_of_two",
    "tile",
    "tl",
    "use_triton",
    "warps",
    "wide",
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # fp64 is the reference's alone: the truth of the tests
PROGRAMS = 256  # that sum gradients of weights. A fixed number, so that the order of a sum depends on shapes alone


def jit(function: Any) -> Any:
    """`triton.jit`, or the function itself where there is no Triton."""
    return function if triton is None else triton.jit(function)


def use_triton(x: Tensor, with_triton: bool | None) -> bool:
    """Whether the kernel is taken: as asked, by default wherever `x` lies on a GPU in a dtype that kernels know.

    Raises RuntimeError where Triton is asked for and cannot be had.
    """
    if with_triton is None:
        return triton is not None and x.is_cuda and x.dtype in DTYPES
    if with_triton and triton is None:
        raise RuntimeError("Triton was asked for and is not installed: install triton>=3.6, or ask for the reference.")
    if with_triton and x.dtype not in DTYPES:
        raise RuntimeError(f"Kernels take {DTYPES}, got {x.dtype}: cast, or ask for the reference.")
    return with_triton


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, whose `tl.dot` on bfloat16 gives garbage (3.6 to 3.9): upcast it."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def launch(kernel: Any, programs: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Start `programs` of a kernel on the device of its first argument, which need not be the current one."""
    with torch.cuda.device_of(arguments[0]):
        kernel[programs](*arguments, **options)


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`; 1 for 0."""
    return 1 << max(number - 1, 0).bit_length()


def divide_up(number: int, by: int) -> int:
    """`number / by`, rounded up."""
    return -(-number // by)


def tile(columns: int, *, widest: int = 4096) -> tuple[int, int]:
    """Rows and columns of a block: whole rows where they fit, several of them where they are short."""
    block = min(power_of_two(columns), widest)
    return max(1, min(2048 // block, 32)), block


def warps(elements: int) -> int:
    """Warps for a block of so many elements: 8 a thread, which bf16 loads at once; between 4 and 16 warps."""
    return min(max(elements // 256, 4), 16)


def as_rows(x: Tensor) -> Tensor:
    """`x` as a matrix of its last dimension, whose elements lie side by side; copies only where they do not."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def wide(x: Tensor) -> Tensor:
    """`x` in fp32 at least: what references compute in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
