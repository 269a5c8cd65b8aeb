"""Gradients and statistics over the workers of one run: whole groups on each, one all-reduce after the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from harness.api.method import Method
from harness.engine.session import Session

BUCKET = 32 * 1024 * 1024
"""Numbers per all-reduce."""


def broadcast_from_first(method: Method, session: Session) -> None:
    """Give every worker the first one's parameters and buffers."""
    if session.world_size > 1:
        for tensor in method.state_dict().values():
            dist.broadcast(tensor, src=0)


def reduce_gradients(method: Method, session: Session, leaves: bool = False) -> bool:
    """Sum gradients over workers in place; one that is missing on some worker counts as zero there. Answers whether
    any worker `leaves`: all of them hear it at the same step.

    Parameters that have no gradient on any worker keep none, so that an optimiser skips them everywhere. Which ones
    have is asked anew at every step: terms start late, and a batch without objects leaves a head out on one worker,
    which its peers cannot know.
    """
    if session.world_size == 1:
        return leaves
    params = [p for p in method.parameters() if p.requires_grad]
    device = params[0].device
    # In a stream of its own the answer waits for the reduction of the step before, not for this step's backward pass.
    with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext():
        has = torch.tensor([*(float(p.grad is not None) for p in params), float(leaves)], device=device)
        dist.all_reduce(has)
        *counts, leaving = has.tolist()
    used = [p for p, n in zip(params, counts, strict=True) if n > 0]
    for p in used:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    for bucket in _buckets([p.grad for p in used if p.grad is not None]):
        flat = torch.cat([g.reshape(-1) for g in bucket])
        dist.all_reduce(flat)
        at = 0
        for g in bucket:
            g.copy_(flat[at : at + g.numel()].view_as(g))
            at += g.numel()
    return bool(leaving > 0)


def reduce_stats(
    per_group: Sequence[Mapping[str, Tensor]], concat: frozenset[str], session: Session
) -> dict[str, Tensor]:
    """Statistics of the global batch: mean over groups, or concatenation in image order for names in `concat`."""
    if not per_group or not per_group[0]:
        return {}
    out: dict[str, Tensor] = {}
    for name in per_group[0]:
        local = torch.stack([s[name] for s in per_group])
        if session.world_size > 1:
            parts = [torch.empty_like(local) for _ in range(session.world_size)]
            dist.all_gather(parts, local.contiguous())
            local = torch.cat(parts)
        out[name] = local.flatten(0, 1) if name in concat else local.mean(0)
    return out


def reduce_losses(losses: Tensor, session: Session) -> Tensor:
    """Sum of each loss term over workers."""
    if session.world_size > 1:
        dist.all_reduce(losses)
    return losses


def gather_objects(value: Any, session: Session) -> list[Any]:
    """Every worker's value, in rank order, on every worker."""
    if session.world_size == 1:
        return [value]
    out: list[Any] = [None] * session.world_size
    dist.all_gather_object(out, value)
    return out


def barrier(session: Session) -> None:
    """Wait until every worker of this run is here."""
    if session.world_size > 1:
        dist.barrier()


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    out: list[list[Tensor]] = []
    size = BUCKET
    for t in tensors:
        if size + t.numel() > BUCKET:
            out.append([])
            size = 0
        out[-1].append(t)
        size += t.numel()
    return out
