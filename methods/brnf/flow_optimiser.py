"""Adam that leaves everything as it was where a gradient is not finite (brnf.md 2.8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class FiniteAdam(torch.optim.Adam):
    """Adam whose step changes nothing while any gradient is infinite or NaN; no host waits to know it.

    Fused, since that form alone skips a step by a tensor (`found_inf`, made for gradient scalers).
    """

    found_inf: Tensor

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, betas: tuple[float, float]):
        super().__init__(list(parameters), lr=lr, betas=betas, fused=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Checkpoints of steps that were not fused go on fused: the other forms ignore `found_inf`."""
        super().__setstate__(state)
        for group in self.param_groups:
            group["fused"], group["capturable"] = True, False

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step, or none. Raises TypeError for a closure."""
        if closure is not None:
            raise TypeError("no closure: gradients must be there")
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            return None
        self.found_inf = torch.stack([~g.isfinite().all() for g in gradients]).any().float()
        return super().step()
