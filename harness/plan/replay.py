"""`config=<file>`: a stored config run again, exactly: the key is that of the run that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.datasets.io.opening import plain_bytes
from harness.errors import BadInput, Problem, StoreError
from harness.plan.config import RunConfig
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
    if problems:
        raise BadInput(problems)
    named = {"method": run.method, "data.name": run.dataset, "labels": run.labels, "variant": run.variant}
    named |= {f"data.{option}": text for option, text in run.options.items()}
    named |= {"data.masks": run.masks or "", "split": run.split or ""}
    if not any(text.startswith("seed=") for text in argv):
        named["seed"] = str(run.seed)
    named["ablation"] = ",".join(f"{run.chosen.spec.name}.{name}" for name in ablation.split("+") if name)
    return [*argv, *(f"{name}={value}" for name, value in named.items() if value)], run
