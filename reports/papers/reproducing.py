"""What would reproduce a paper's tables: its plans, what they cost at least, and what is missing on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.api.registry import registry
from harness.cli.packaged import plans
from harness.cli.parsing import Parsed, parse_rows, split_list
from harness.cli.run_words import Words
from harness.errors import BadInput, Problem, command

TRAINED = 3
"""A trained pass costs its forward pass, and twice that backwards."""
WEIGHTS_KEPT = 2
"""Best and last weights of a run."""


@dataclass(frozen=True)
class Cost:
    """What the runs of one method in a row of a plan cost at least: the encoder's trained pass alone."""

    method: str
    ablation: str
    runs: int
    iterations: int
    batch: int
    crop: int
    backbone: str
    flops: float
    """Of all runs together, one multiply-add is two."""
    disk: int
    """Bytes of the weights that are kept."""


def plans_of(paper: str) -> dict[str, Path]:
    """The plan files of a paper by name: those called `<paper>_...`, and `<paper>` alone."""
    return {name: path for name, path in plans().items() if name == paper or name.startswith(f"{paper}_")}


def how(paper: str, *, tflops: float, store: str, root: str | None = None) -> str:
    """In words, for each plan of a paper: the command, its rows, FLOPs, hours at so many sustained TFLOP/s, disk, and
    what is missing here. Raises BadInput where the harness has no plan of the paper."""
    found = plans_of(paper)
    if not found:
        have = sorted({name.partition("_")[0] for name in plans()})
        raise BadInput(Problem("paper", f"the harness has no plan for {paper!r}", f"known: {', '.join(have)}"))
    return "\n\n".join(_plan_text(name, tflops, store, root) for name in found)


def _plan_text(name: str, tflops: float, store: str, root: str | None) -> str:
    given = {"plan": name, "store": store, **({"data.root": root} if root else {})}
    argv = [f"{k}={v}" for k, v in given.items()]
    sets = parse_rows(argv, Words, "sweep", registry().names(), collect=True)
    lines = [f"{name}: {command('harness.sweep', **given)}"]
    missing = [str(p) for parsed in sets for p in parsed.problems]
    costs = [] if missing else [cost for parsed in sets for cost in costs_of(parsed)]
    for c in costs:
        what = f"{c.method}{f' ({c.ablation})' if c.ablation else ''}"
        lines.append(
            f"  {what}: {c.runs} runs of {c.iterations:,} steps of {c.batch} images at {c.crop} px, {c.backbone}; "
            f"at least {c.flops:.2g} FLOPs, {hours(c.flops, tflops):,.0f} h"
        )
    flops, disk = sum(c.flops for c in costs), sum(c.disk for c in costs)
    lines.append(
        f"  together at least {flops:.2g} FLOPs, {hours(flops, tflops):,.0f} h at {tflops:g} TFLOP/s: the encoder's "
        f"trained pass, without scoring, further CAM scales, teachers and crops; {disk / 2**30:.1f} GiB of weights"
    )
    missing = missing or _missing(sets)
    lines += ["  missing here:", *(f"    {line}" for line in missing)] if missing else ["  nothing is missing here"]
    return "\n".join(lines)


def hours(flops: float, tflops: float) -> float:
    """Hours of so many operations at so many 10^12 a second."""
    return flops / (tflops * 1e12) / 3600


def costs_of(parsed: Parsed) -> list[Cost]:
    """The cost of each method of one set of words, from its preset; data are not looked at."""
    words: Words = parsed.words
    out = []
    for name in split_list(words.methods or ""):
        chosen = registry().choose(name)
        preset = chosen.preset(words.data.name, words.tier or "paper", words.variant)
        crop, batch = words.crop or preset.crop, words.batch or preset.batch
        iterations = max(1, round((words.iterations or preset.iterations) * words.fidelity))
        backbone = words.backbone.name or preset.backbone
        runs = (words.trials or 1 if words.protocol != "fixed" else 1) - 1 + (words.seeds or preset.seeds)
        forward, parameters = _encoder(backbone, crop)
        flops = float(runs) * iterations * batch * TRAINED * forward
        disk = runs * WEIGHTS_KEPT * 4 * parameters
        out.append(Cost(name, words.ablation or "", runs, iterations, batch, crop, backbone, flops, disk))
    return out


@lru_cache(maxsize=16)
def _encoder(backbone: str, crop: int) -> tuple[int, int]:
    """Operations of one image's forward pass, counted without numbers, and the number of parameters.

    Raises BadInput for a backbone that is not timm's: papers start from none of those.
    """
    if backbone.startswith("shapes_"):
        raise BadInput(Problem("plan", f"starts from {backbone}", "give backbone= and data= in the plan"))
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    sized: dict[str, Any] = {"img_size": crop} if backbone.startswith(("vit", "deit")) else {}
    with torch.device("meta"), torch.no_grad():
        encoder: Any = timm.create_model(backbone, num_classes=0, **sized).eval()
        for module in encoder.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # fused, it is one operation that nobody counts
        with FlopCounterMode(display=False) as counted:
            encoder(torch.empty(1, 3, crop, crop))
    return counted.get_total_flops(), sum(p.numel() for p in encoder.parameters())


def _missing(sets: Sequence[Parsed]) -> list[str]:
    """What keeps the plan from starting here; nothing is run, no weights are read."""
    from harness.plan.plan import make_plan

    try:
        make_plan(list(sets))
    except BadInput as error:
        return [str(problem) for problem in error.problems]
    return []
