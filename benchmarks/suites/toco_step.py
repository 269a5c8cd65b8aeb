"""ToCo's training step next to its matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks import Case, method_step
from harness.api.method import Progress
from methods.parts.ops.crops import cut_windows

PHASES = {"before-seg": 50, "all": 900}
"""A step of a thousand before pseudo labels, and one with every term."""


class TocoStep(method_step.MethodStep):
    """The step with local crops at fixed places."""

    name = "toco"
    view_names = ("view1", "view2", "local")

    def outputs(self, progress: Progress) -> list[Tensor]:
        """Class maps, token products, class contrast and, once it has started, the decoder."""
        method, net, views = self.method, self.method.net, self.batch.views
        count, with_seg = len(self.batch.ids), "seg" in method.active(progress)
        both, class_BD = net.read(torch.cat([views["view1"], views["view2"]]))
        tokens = both.first(count)
        method.cams(views["view1"], self.batch.tags_BC, tokens, with_top=with_seg)
        corner_Bn2 = torch.zeros(count, method.config.local_crops, 2, dtype=torch.int64)
        local = cut_windows(views["local"], corner_Bn2, method.local_side).flatten(0, 1)
        student = net.projector(torch.cat([class_BD, net.class_tokens(local)]))
        with torch.no_grad():
            teacher = method.projector_teacher(class_BD)
        found = [net.both_maps_of(tokens), tokens.top_BND @ tokens.top_BND.transpose(1, 2), teacher @ student.T]
        return [*found, net.segment(tokens.top_BND, tokens.hw, tokens.skip_BSHW)] if with_seg else found


def cases(quick: bool) -> list[Case]:
    """Sizes of tier lab and of the embedded dataset; quick: two images."""
    return method_step.cases(TocoStep, PHASES, quick)
