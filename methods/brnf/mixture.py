"""A flow whose latent space holds a mixture of classes: f1 and f2 of BRNF (brnf.md 2.3 to 2.5).

Axes: N pixels, D features, K classes, M components of a class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.brnf.density import class_likelihood, class_posterior
from methods.brnf.flow import Flow

MEANS = ("normal", "orthogonal")


class ClassFlow(nn.Module):
    """Flow, and unit Gaussians around trainable means: `components` of each class, of equal or learned weights.

    `means` "normal" draws from N(0,I); "orthogonal" takes orthogonal vectors of the same length sqrt(D), as many as D
    allows. `fixed`: one Gaussian around 0 that does not learn. Computes in float32 under autocast too.
    """

    log_weight_KM: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        hidden: int = 256,
        blocks: int = 2,
        clamp: float = 2.0,
        components: int = 1,
        learned_weights: bool = False,
        means: str = "normal",
        fixed: bool = False,
    ):
        super().__init__()
        self.classes, self.components = classes, components
        self.flow = Flow(dim, hidden, blocks, clamp)
        count = classes * components
        start_KD = torch.randn(count, dim)
        if means == "orthogonal":
            rows = min(count, dim)
            start_KD[:rows] = dim**0.5 * torch.linalg.qr(start_KD[:rows].T)[0].T
        self.mean_KD = nn.Parameter(torch.zeros(count, dim) if fixed else start_KD, requires_grad=not fixed)
        self.log_weight_KM = nn.Parameter(torch.zeros(count)) if learned_weights else None

    def latent(self, a_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors (N,D) and log|det J| (N,), nats."""
        z_ND, logdet_N = self.flow(a_ND.float())
        return z_ND, logdet_N

    def log_weights(self) -> Tensor | None:
        """Log-weight of each component (K M,), nats, all together 1; None where one component has all of its class."""
        if self.log_weight_KM is not None:
            return self.log_weight_KM.log_softmax(dim=0)
        if self.components == 1:
            return None
        return self.mean_KD.new_full((len(self.mean_KD),), 1.0 / self.components).log()

    def likelihood(self, z_ND: Tensor, logdet_N: Tensor) -> Tensor:
        """Log-density of the flow's input under each class: (N,K), nats per vector."""
        found = class_likelihood(z_ND, logdet_N, self.mean_KD, self.log_weights())
        return found if self.components == 1 else found.unflatten(1, (self.classes, self.components)).logsumexp(dim=2)

    def posterior(self, z_ND: Tensor, present_NK: Tensor, temperature: float | None = None) -> Tensor:
        """The GMM classifier over present classes: (N,K) in [0,1]."""
        present = present_NK.repeat_interleave(self.components, dim=1)
        found = class_posterior(z_ND, self.mean_KD, present, temperature, self.log_weights())
        return found if self.components == 1 else found.unflatten(1, (self.classes, self.components)).sum(dim=2)
