"""RoPE, and the norms of queries and keys before it, inside transformers' own attention forwards.

All of them call the function `apply_rotary_pos_emb` of their file. The forward that a module gets here is its class's
own code with another function by that name: projections, caches, windows and caps stay exactly what the installed
version does, and neither class nor file is touched. cos and sin are taken as tables with a row for each token.
Shapes: B texts, H heads of q, S tokens, D features of a head.
"""

from __future__ import annotations

from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from runner.kernels.forwards.norms import eps_of
from runner.kernels.ops.qk_norm_rope import qk_norm_rope
from runner.kernels.ops.rope import rope
from runner.kernels.places import Edit, Function, Request, UnfitError, forward, must_agree, must_be_dense, sample

NAME = "apply_rotary_pos_emb"


def turn(module: nn.Module, request: Request) -> list[Edit]:
    """An attention that turns queries and keys; none where the layer has no rotary positions."""
    if not getattr(module, "use_rope", True):  # SmolLM3's every fourth layer
        return []
    doubled = _tables(module, request)
    positions = request.shared.setdefault("positions", Positions())
    turned = partial(_turned, doubled=doubled, positions=positions, with_triton=request.with_triton)

    def make(module: nn.Module) -> Function:
        return _with(module, turned)

    return [forward(module, request, make)]


def norm_and_turn(module: Any, request: Request) -> list[Edit]:
    """An attention that norms each head of queries and keys and turns them; its two norms hand on what they get."""
    doubled = _tables(module, request)
    positions = request.shared.setdefault("positions", Positions())
    offset, with_triton = request.family.norm_offset, request.with_triton
    if not (hasattr(module, "q_norm") and hasattr(module, "k_norm")):
        raise UnfitError("it has no q_norm and k_norm")
    norms: list[nn.Module] = [module.q_norm, module.k_norm]
    for norm in norms:
        weight = must_be_dense(norm, "weight")
        if weight.shape != (module.head_dim,):
            raise UnfitError(f"its norms are over {tuple(weight.shape)}, not over one head of {module.head_dim}")
        must_agree(norm, partial(_plain_norm, eps=eps_of(norm), offset=offset), sample(2, weight, weight.numel()))
    if eps_of(norms[0]) != eps_of(norms[1]):
        raise UnfitError("its two norms have not the same eps")

    def make(module: nn.Module) -> Function:
        settings = {"doubled": doubled, "positions": positions, "with_triton": with_triton}
        return _with(module, partial(_normed_and_turned, module, offset=offset, **settings))

    return [forward(module, request, make), *(forward(norm, request, _as_it_is) for norm in norms)]


class Positions:
    """Row of the tables for each token, one tensor for all layers and steps of the same shape."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] = ()
        self.rows = torch.empty(0)

    def of(self, texts: int, tables: int, tokens: int, device: torch.device) -> Tensor:
        """For `texts` of so many tokens each, and a table for each text or one for all."""
        key = (texts, tables, tokens, device)
        if key != self.key:
            with torch.inference_mode(False):  # such tensors could not be kept for a backward
                rows = torch.arange(tables * tokens, device=device)
                self.key, self.rows = key, rows.repeat(texts // tables)
        return self.rows


def _with(module: nn.Module, turned: Function) -> Function:
    """The forward of the module's class, in which `apply_rotary_pos_emb` is `turned`."""
    own = _code(module)
    names = {**own.__globals__, NAME: turned}
    function = FunctionType(own.__code__, names, own.__name__, own.__defaults__, own.__closure__)
    function.__kwdefaults__ = own.__kwdefaults__
    return function


def _code(module: nn.Module) -> FunctionType:
    own = type(module).forward
    if not isinstance(own, FunctionType) or NAME not in own.__code__.co_names or NAME not in own.__globals__:
        raise UnfitError(f"its forward does not call {NAME}")
    return own


def _tables(module: nn.Module, request: Request) -> bool:
    """Whether cos and sin hold every angle twice, as most do. Raises UnfitError where pairs are not a half apart."""
    turned = _code(module).__globals__[NAME]
    if turned not in request.shared:
        request.shared[turned] = next((d for d in (True, False) if _agrees(turned, d)), None)
    if request.shared[turned] is None:
        raise UnfitError(f"its {NAME} turns other pairs than (c, c + half)")
    return bool(request.shared[turned])


def _agrees(turned: Function, doubled: bool) -> bool:
    x = sample(2 * 3, torch.empty(0), 8).view(1, 2, 3, 8)
    angles = sample(3, torch.empty(0), 4).view(1, 3, 4)
    tables = [table.repeat(1, 1, 2) if doubled else table for table in (angles.cos(), angles.sin())]
    try:
        theirs = turned(x, x[:, :1], *tables)
    except RuntimeError:  # shapes that do not fit each other
        return False
    cos, sin = tables
    mine = _turned(x, x[:, :1], cos, sin, doubled=doubled, positions=Positions(), with_triton=False)
    return all(torch.allclose(one, other, atol=1e-6) for one, other in zip(mine, theirs, strict=True))


def _turned(
    q_BHSD: Tensor,
    k_BGSD: Tensor,
    cos: Tensor,
    sin: Tensor,
    unsqueeze_dim: int = 1,
    *,
    doubled: bool,
    positions: Positions,
    with_triton: bool | None,
) -> tuple[Tensor, Tensor]:
    q_THD, k_TGD, *tables = _flat(q_BHSD, k_BGSD, cos, sin, unsqueeze_dim, doubled, positions)
    return _back(rope(q_THD, k_TGD, *tables, with_triton=with_triton), q_BHSD)


def _normed_and_turned(
    module: Any,
    q_BHSD: Tensor,
    k_BGSD: Tensor,
    cos: Tensor,
    sin: Tensor,
    unsqueeze_dim: int = 1,
    *,
    doubled: bool,
    positions: Positions,
    offset: float,
    with_triton: bool | None,
) -> tuple[Tensor, Tensor]:
    q_THD, k_TGD, *tables = _flat(q_BHSD, k_BGSD, cos, sin, unsqueeze_dim, doubled, positions)
    weights = (module.q_norm.weight, module.k_norm.weight)
    eps = eps_of(module.q_norm)
    return _back(qk_norm_rope(q_THD, k_TGD, *weights, *tables, eps=eps, offset=offset, with_triton=with_triton), q_BHSD)


def _flat(
    q_BHSD: Tensor, k_BGSD: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int, doubled: bool, positions: Positions
) -> tuple[Tensor, ...]:
    """Tokens in one row, which copies nothing: heads lie next to each other in what the projections give."""
    if unsqueeze_dim != 1 or cos.dim() != 3:
        raise RuntimeError(f"{NAME} was called with tables {tuple(cos.shape)} and unsqueeze_dim={unsqueeze_dim}.")
    pairs = cos.shape[-1] // 2 if doubled else cos.shape[-1]
    rows = positions.of(q_BHSD.shape[0], cos.shape[0], cos.shape[1], q_BHSD.device)
    flat = [x.transpose(1, 2).flatten(0, 1) for x in (q_BHSD, k_BGSD)]
    tables = [table.flatten(0, 1)[:, :pairs] for table in (cos, sin)]
    return *flat, *tables, rows


def _back(turned: tuple[Tensor, Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    texts, _, tokens, features = like.shape
    q, k = (x.view(texts, tokens, -1, features).transpose(1, 2) for x in turned)
    return q, k


def _plain_norm(_module: nn.Module, x: Tensor, *, eps: float, offset: float) -> Tensor:
    weight = _module.weight
    assert isinstance(weight, Tensor)
    normed = x.double() * torch.rsqrt(x.double().square().mean(-1, keepdim=True) + eps)
    return normed * (weight.double() + offset)


def _as_it_is(_module: nn.Module) -> Function:
    def handed_on(_self: nn.Module, x: Tensor) -> Tensor:
        return x

    return handed_on
