"""UniA's training step next to its matrix products."""

from __future__ import annotations

from torch import Tensor

from benchmarks import Case, method_step
from harness.api.method import Progress
from methods.unia.labels import routing

PHASES = {"before-seg": 50, "refined": 900}
"""A step of a thousand before pseudo labels, and one with every term and refined labels."""


class UniaStep(method_step.MethodStep):
    """The step with its module and affinity."""

    name = "unia"

    def outputs(self, progress: Progress) -> list[Tensor]:
        """Class maps, token products, affinity, means and, once it has started, the decoder."""
        route = routing(self.method.config, progress)
        net, images = self.method.net, self.batch.views["view1"]
        tokens = net.read(images, with_affinity=route.affinity, with_mean="kl" in route.terms)
        self.method.cams(images, self.batch.tags_BC, tokens, with_top=route.top)
        found = [net.both_maps_of(tokens), tokens.top_BND @ tokens.top_BND.transpose(1, 2)]
        found += [t for t in (tokens.affinity_BNN, tokens.mean_BND) if t is not None]
        if route.terms & {"seg", "reg"}:
            found.append(net.segment(tokens.top_BND, tokens.hw, tokens.skip_BSHW))
        return found


def cases(quick: bool) -> list[Case]:
    """Sizes of tier lab and of the embedded dataset; quick: two images."""
    return method_step.cases(UniaStep, PHASES, quick)
