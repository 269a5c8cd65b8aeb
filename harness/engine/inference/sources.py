"""What a target is scored from: a network that predicts it, files of an earlier stage, or both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.api.method import Method
from harness.api.recipe import PerImage
from harness.engine.context import Context
from harness.engine.scorer import Scorer


@dataclass(frozen=True)
class Source:
    """A network and how it sees images; or the folder of files that stand for its student, or for no network at all."""

    scorer: Scorer
    network: Method | None = None
    files: Path | None = None

    def weights(self, target: str) -> list[str]:
        """Whose predictions of a target are scored: student, and teacher where there is one.

        The teacher's pseudo masks feed no loss: only what papers print of it is scored.
        """
        teacher = self.network is not None and self.network.teacher is not None and target != "pseudo"
        return ["student", "teacher"] if teacher else ["student"]


def source_of(context: Context, target: str) -> Source:
    """Where the scores of a target come from, once the stages that make it are done."""
    recipe = context.recipe
    made, network = recipe.scored[target], recipe.network_of(target)
    files = context.made[made].path if isinstance(recipe.maker(made), PerImage) else None
    return Source(context.scorer(network), None if network is None else context.network(network), files)
