"""Adam that leaves everything as it was where a gradient is not finite (brnf.md 2.8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class FiniteAdam(torch.optim.Adam):
    """Adam whose step changes nothing while any gradient is infinite or NaN; no host waits to know it."""

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, betas: tuple[float, float]):
        learned = list(parameters)
        # On a GPU the number of steps lies there too.
        super().__init__(learned, lr=lr, betas=betas, capturable=learned[0].is_cuda)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step, or none. Raises TypeError for a closure."""
        if closure is not None:
            raise TypeError("no closure: gradients must be there")
        learned = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not learned:
            return None
        finite = torch.stack([p.grad.isfinite().all() for p in learned if p.grad is not None]).all()
        before = [(p, p.clone()) for p in learned] + [(v, v.clone()) for p in learned for v in self._averages(p)]
        for p in learned:
            assert p.grad is not None
            p.grad.nan_to_num_(0.0, 0.0, 0.0)
        super().step()
        old = {id(now): then for now, then in before}
        for now in [*learned, *(v for p in learned for v in self._averages(p))]:
            now.copy_(torch.where(finite, now, old.get(id(now), torch.zeros_like(now))))
        return None

    def _averages(self, parameter: Tensor) -> list[Tensor]:
        return list(self.state[parameter].values())
