"""`config=<file>`: a stored config run again, exactly: the key is that of the run that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import NETWORK_WORDS, Words
from harness.datasets.io.opening import plain_bytes
from harness.errors import BadInput, Problem, StoreError
from harness.plan.config import RunConfig
from harness.plan.recipes import SIZES
from harness.plan.resolve import check_words
from harness.store.rows import json_object

WORD = "config="
BESIDE = (
    "data.root", "data.classes", "backbone.weights", "segmenter.weights", "affinity.weights", "seed", "protocol",
    "workers", "gpus", "threads", "loaders", "checkpoint_every", "keep", "store", "ray", "retry", "dry_run",
)  # fmt: skip
"""Words that go with `config=`: where things lie, how they are run, and another seed. Every other would be another
config."""


def stored_config(argv: Sequence[str]) -> tuple[list[str], RunConfig | None]:
    """The words of a command with those that say which data a stored config reads, and the config; None where the words
    name none.

    The file holds what the column `config` of `runs` holds. Raises BadInput for a file that holds no config, and for
    words that it has already.
    """
    files = [text.removeprefix(WORD) for text in argv if text.startswith(WORD)]
    if not files:
        return list(argv), None
    problems = [
        Problem(
            text.partition("=")[0], "is said by config= already", f"beside it go {', '.join(BESIDE)}; or no config="
        )
        for text in argv
        if "=" in text and not text.startswith(WORD) and text.partition("=")[0] not in BESIDE
    ]
    try:
        text = plain_bytes(Path(files[0]).expanduser()).decode()
        run = RunConfig.from_stored(text)
        ablation = str(json_object(text, files[0]).get("ablation") or "")
    except OSError as e:
        problems.append(
            Problem("config", f"{files[0]} cannot be read ({e.strerror})", "the column config of runs, as a file")
        )
    except (StoreError, UnicodeDecodeError, KeyError, TypeError) as e:
        problems.append(
            Problem("config", f"{files[0]} holds no config: {e}", "take the column config of runs as it is")
        )
    if not problems:
        problems = _illegal(run)
    if problems:
        raise BadInput(problems)
    named = {"method": run.method, "data.name": run.dataset, "labels": run.labels, "variant": run.variant}
    named |= {f"data.{option}": text for option, text in run.options.items()}
    named |= {"data.masks": run.masks or "", "split": run.split or ""}
    if not any(text.startswith("seed=") for text in argv):
        named["seed"] = str(run.seed)
    named["ablation"] = ",".join(f"{run.chosen.spec.name}.{name}" for name in ablation.split("+") if name)
    return [*argv, *(f"{name}={value}" for name, value in named.items() if value)], run


AS_WORDS = ("variant", "tier", "decoder", "crop", "batch", "group", "iterations", "fidelity", "precision", "seed",
            "fusion", "crf", "split")  # fmt: skip
"""Fields of a config that are words too."""


def _illegal(run: RunConfig) -> list[Problem]:
    """Values of a config that no word could have given."""
    texts = {name: getattr(run, name) for name in AS_WORDS if getattr(run, name) is not None}
    texts["scales"] = ",".join(map(str, run.scales)) or ","
    lacking: list[Problem] = []
    for network, sizes in run.networks.items():
        lacking += [Problem(f"networks.{network}", f"lacks {size}", "") for size in SIZES if size not in sizes]
        known = {k: v for k, v in sizes.items() if k != "weights"}
        texts |= {f"{network if network in NETWORK_WORDS else NETWORK_WORDS[0]}.{k}": v for k, v in known.items()}
    found = parse([f"{k}={v}" for k, v in texts.items()], Words, "train", registry().names(), collect=True)
    problems = [*lacking, *found.problems, *check_words(found.words)]
    if not 0 <= run.cam_threshold <= 1:
        problems.append(Problem("cam_threshold", f"{run.cam_threshold:g} is outside [0,1]", "a background score"))
    return [Problem(f"config: {p.where}", p.found, "take the column config of runs as it is") for p in problems]
