"""RMSNorm and LayerNorm of any family."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runner.kernels.ops.layer_norm import layer_norm
from runner.kernels.ops.rms_norm import rms_norm
from runner.kernels.places import Edit, Function, Request, UnfitError, forward, must_agree, must_be_dense, sample

EPS = ("variance_epsilon", "eps")


def rms(module: nn.Module, request: Request) -> list[Edit]:
    """An RMS norm, whose result has the dtype of the module's own also where the weight is wider than the input."""
    weight = must_be_dense(module, "weight")
    make = _rms(request)
    must_agree(module, make(module), sample(2, weight, weight.numel()))
    return [forward(module, request, make)]


def eps_of(module: nn.Module) -> float:
    """The number under the root; raises UnfitError where the module names none."""
    for name in EPS:
        if isinstance(getattr(module, name, None), float):
            return float(getattr(module, name))
    raise UnfitError(f"it has none of {', '.join(EPS)}")


def _rms(request: Request) -> Function:
    offset, with_triton = request.family.norm_offset, request.with_triton

    def make(module: nn.Module) -> Function:
        eps, promotes = eps_of(module), _promotes(module)

        def normed(self: nn.Module, x: Tensor) -> Tensor:
            weight = self.weight
            assert isinstance(weight, Tensor)
            y = rms_norm(x, weight, eps=eps, offset=offset, with_triton=with_triton)
            return y.to(torch.promote_types(x.dtype, weight.dtype)) if promotes else y

        return normed

    return make


def _promotes(module: nn.Module) -> bool:
    """Whether the module's own result is as wide as a weight that is wider than the input (Llama's is, Gemma's not)."""
    weight = must_be_dense(module, "weight")
    if weight.dtype != torch.float32:
        return False
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        own = type(module).forward(module, torch.ones(1, weight.numel(), dtype=torch.bfloat16, device=weight.device))
    assert isinstance(own, Tensor)
    return own.dtype == torch.float32


def layer(module: nn.Module, request: Request) -> list[Edit]:
    """A layer norm of torch's own class, over the last dimension and with a weight."""
    if type(module) is not nn.LayerNorm:
        raise UnfitError(f"it is a {type(module).__name__}, not torch's own LayerNorm")
    if not module.elementwise_affine or len(module.normalized_shape) != 1:
        raise UnfitError("it takes a layer norm with a weight over the last dimension")
    weight = must_be_dense(module, "weight")
    with_triton = request.with_triton

    def make(_module: nn.Module) -> Function:
        def normed(self: nn.LayerNorm, x: Tensor) -> Tensor:
            return layer_norm(x, self.weight, self.bias, eps=self.eps, with_triton=with_triton)

        return normed

    must_agree(module, make(module), sample(2, weight, weight.numel()))
    return [forward(module, request, make)]
