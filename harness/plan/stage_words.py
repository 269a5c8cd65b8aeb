"""The words that only some recipes read: `until`, sizes of further networks, and knobs of stages that a run leaves out.

One rule for all: what no method of a plan can read is refused; what some of them read is a note on the others, because
the rows of a plan share the words of the line, and a plug-in brings its base along.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from harness.api.recipe import NETWORK
from harness.cli.run_words import NETWORK_WORDS, Words
from harness.errors import Problem, nearest
from harness.plan.config import RunConfig
from harness.plan.recipes import idle_knobs, recipe_of, usual_recipe, whole_recipe


class StageWords:
    """Which methods of a plan can read which of these words, over all its rows."""

    def __init__(self) -> None:
        self.rows = 0
        """That were added: those whose methods could not be resolved say nothing of who reads what."""
        self._readers: dict[str, set[str]] = defaultdict(set)
        self._known: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
        """By word and method that cannot read it: the stages or networks that it has."""

    def add(self, words: Words, knobs: Mapping[str, Collection[str]], runs: Sequence[RunConfig]) -> list[str]:
        """What the runs of a row do not read of its words, and of the `knobs` given by method: one line each."""
        self.rows += 1
        silent: dict[tuple[str, str], list[str]] = defaultdict(list)
        for run in {run.method: run for run in runs}.values():
            given = set(knobs.get(run.chosen.spec.name, ()))
            for word, why in (*self._until(words, run), *self._sizes(words, run), *_left_out(run, given)):
                silent[word, why].append(run.method)
        return [f"{word} is not read by {', '.join(methods)}: {why}" for (word, why), methods in silent.items()]

    def problems(self) -> list[Problem]:
        """The words that no method of any row can read."""
        return [
            Problem(
                word,
                f"no such stage or network in the recipe of {', '.join(known)}",
                nearest(word.partition("=")[2] or word.partition(".")[0], names) if names else "leave it out",
            )
            for word, known in self._known.items()
            if not self._readers[word]
            for names in [{name for of in known.values() for name in of}]
        ]

    def _until(self, words: Words, run: RunConfig) -> Iterator[tuple[str, str]]:
        stages = tuple(stage.name for stage in whole_recipe(run).stages)
        if words.until is not None and not self._reads(run, f"until={words.until}", words.until, stages):
            yield f"until={words.until}", "it has no such stage and runs to its end"

    def _sizes(self, words: Words, run: RunConfig) -> Iterator[tuple[str, str]]:
        every = [stage for recipe in (whole_recipe(run), usual_recipe(run)) for stage in recipe.training]
        known = tuple(dict.fromkeys(stage.network for stage in every if stage.network != NETWORK))
        trained = {stage.network for stage in recipe_of(run).training}
        for network in NETWORK_WORDS:
            for size, value in dataclasses.asdict(getattr(words, network)).items():
                word = f"{network}.{size}"
                if value is None:
                    continue
                if not self._reads(run, word, network, known):
                    yield word, f"it has no {network}"
                elif network not in trained:
                    yield word, f"its {network} is not trained {_because(run)}"

    def _reads(self, run: RunConfig, word: str, name: str, known: tuple[str, ...]) -> bool:
        if name in known:
            self._readers[word].add(run.method)
            return True
        self._known[word][run.method] = known
        return False


def _left_out(run: RunConfig, given: Collection[str]) -> Iterator[tuple[str, str]]:
    """The given knobs that no stage of a run reads."""
    for knob in sorted(idle_knobs(run) & set(given)):
        yield f"{run.chosen.spec.name}.{knob}", f"no stage that reads it is run {_because(run)}"


def _because(run: RunConfig) -> str:
    return "with these knobs" if run.until is None else f"until {run.until}"
