"""The picture behind methods/brnf/README.md:  python docs/pictures/flow.py docs/pictures/flow.png

A density that is known exactly, the best that class Gaussians do without a flow, and what BRNF's flow learns of it.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor, nn

from methods.brnf.density import class_likelihood, flow_loss
from methods.brnf.flow import Flow

BEND = 0.8
CENTRES_KD = torch.tensor([[0.0, -1.5], [0.0, 1.5]])
ENTROPY = math.log(2 * math.pi * math.e)
"""Nats of the labelled target: no density has a smaller loss."""
STEPS, BATCH = 600, 512


def bent(z_ND: Tensor) -> Tensor:
    """Vectors bent along a parabola. The Jacobian is 1: densities stay what they are."""
    return torch.stack([z_ND[:, 0], z_ND[:, 1] + BEND * (z_ND[:, 0] ** 2 - 1.0)], dim=1)


def unbent(a_ND: Tensor) -> Tensor:
    """The inverse of `bent`."""
    return torch.stack([a_ND[:, 0], a_ND[:, 1] - BEND * (a_ND[:, 0] ** 2 - 1.0)], dim=1)


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Vectors (N,2) of two bent unit Gaussians, and the class of each (N,)."""
    label_N = torch.randint(0, 2, (count,), generator=generator)
    return bent(torch.randn(count, 2, generator=generator) + CENTRES_KD[label_N]), label_N


def loss_of(z_ND: Tensor, logdet_N: Tensor, means_KD: Tensor, label_N: Tensor) -> Tensor:
    """L_f of labelled latent vectors."""
    present_NK = torch.ones(len(z_ND), len(means_KD), dtype=torch.bool)
    return flow_loss(class_likelihood(z_ND, logdet_N, means_KD), label_N, present_NK)


def learn(generator: torch.Generator) -> tuple[Flow, Tensor]:
    """A flow and its class means, fitted to draws of the target with the betas and the decay of brnf.md 3."""
    flow, means_KD = Flow(2, hidden=32), nn.Parameter(torch.randn(2, 2, generator=generator))
    optimizer = torch.optim.Adam([*flow.parameters(), means_KD], lr=1e-2, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.01 ** (1 / STEPS))
    for _ in range(STEPS):
        a_ND, label_N = draw(BATCH, generator)
        optimizer.zero_grad()
        loss_of(*flow(a_ND), means_KD, label_N).backward()
        optimizer.step()
        schedule.step()
    return flow, means_KD.detach()


@torch.no_grad()
def main(path: str) -> None:
    """Draw the three densities with their losses above that of the true one."""
    import matplotlib as mpl  # a second that the test of this file saves

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    a_ND, label_N = draw(20_000, generator)
    with torch.enable_grad():
        flow, means_KD = learn(generator)
    own_KD = torch.stack([a_ND[label_N == k].mean(dim=0) for k in (0, 1)])
    x, y = torch.meshgrid(torch.linspace(-3.2, 3.2, 240), torch.linspace(-4.5, 7.5, 240), indexing="xy")
    grid_ND = torch.stack([x.flatten(), y.flatten()], dim=1)
    still = torch.zeros(1)
    panels = {
        "true density": (unbent, CENTRES_KD),
        "class Gaussians, no flow": (lambda a: a, own_KD),
        f"flow, {STEPS} steps": (lambda a: flow(a)[0], means_KD),
    }
    least = loss_of(unbent(a_ND), still.expand(len(a_ND)), CENTRES_KD, label_N)
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, (title, (latent, means)) in zip(axes, panels.items(), strict=True):
        logdet = (lambda a: flow(a)[1]) if title.startswith("flow") else (lambda a: still.expand(len(a)))
        density_N = class_likelihood(latent(grid_ND), logdet(grid_ND), means).logsumexp(dim=1).exp() / 2
        axis.contour(x, y, density_N.view_as(x), levels=8, linewidths=0.7, cmap="viridis")
        above = float(loss_of(latent(a_ND), logdet(a_ND), means, label_N) - least)
        axis.set_title(f"{title}\n+{abs(above):.2f} nats" if latent is not unbent else title, fontsize=9)
        axis.tick_params(labelsize=7)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(sys.argv[1])
