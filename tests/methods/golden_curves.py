"""Golden loss curves: 20 steps on generated pictures with a randomly started `shapes_vit`.

`GOLDEN_WRITE=1 pytest tests/methods` writes the files anew. It refuses where a curve changed and no version did:
raise the `version` of the method, or the `VERSION` of the part that changed, first.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from harness.api.method import Batch, BuildInfo, Method, Progress
from harness.api.registry import registry
from harness.api.spec import MethodConfig, MethodSpec, Preset, resolve
from harness.plan.knobs import typed_knobs
from harness.plan.versions import versions

torch.set_num_threads(1)  # the files hold one thread's sums, and these sizes gain nothing from a second
FOLDER = Path(__file__).parents[1] / "golden"
STEPS = 20
RELATIVE = 1e-4
CLASSES, CROP, GROUP = 3, 48, 4
SMALL: dict[str, Any] = {
    "lr": 7e-4,
    "head_lr_scale": 1.0,
    "warmup": 0.05,
    "seg_start": 0.2,
    "cam_scales": (1.0,),
    "par_dilations": (1, 2, 4),
}
"""Set here and not taken from a preset: tuning a preset is no change of a method."""
Curve = dict[str, list[float | None]]


def make(
    name: str,
    variant: str = "default",
    *,
    iterations: int = STEPS,
    crop: int = CROP,
    base_knobs: Mapping[str, Any] | None = None,
    **knobs: Any,
) -> Method:
    """A method at a small size on a random `shapes_vit`, seeded; `knobs` replace the card's, `base_knobs` those of a
    plug-in's base."""
    info_words = {"has_background": True, "num_classes": CLASSES, "decoder": "largefov", "weights": "random"}
    info_words["backbone"] = "shapes_vit"
    words = {key: knobs.pop(key, value) for key, value in info_words.items()}
    chosen = registry().choose(name)
    spec = chosen.spec
    config = _config(spec, chosen.preset("voc", "paper", variant), knobs)
    info = BuildInfo(
        num_classes=words["num_classes"],
        has_background=words["has_background"],
        crop=crop,
        iterations=iterations,
        group=GROUP,
        tier="smoke",
        variant=variant,
        labels=spec.labels[0],
        backbone=words["backbone"],
        backbone_weights=words["weights"],
        decoder=words["decoder"],
    )
    torch.manual_seed(0)
    if chosen.base is not None and spec.trains_base:
        beneath = _config(chosen.base, chosen.base_preset("voc", "paper", variant), base_knobs)
        info = dataclasses.replace(info, base=resolve(chosen.base.build)(beneath, info))
    return resolve(spec.build)(config, info).train()


def _config(spec: MethodSpec, card: Preset, knobs: Mapping[str, Any] | None) -> MethodConfig:
    small = {k: v for k, v in SMALL.items() if k in spec.config.knobs()}
    return typed_knobs(spec, {**card.knobs, **small, **(knobs or {})})


def batch(method: Method, seed: int = 0, *, crop: int = CROP, classes: int = CLASSES, images: int = GROUP) -> Batch:
    """Pictures of one bright square per present class on noise, its tags, and its mask where masks are read."""
    rng = torch.Generator().manual_seed(seed)
    pixels = 0.2 * torch.rand(images, 3, crop, crop, generator=rng)
    label = torch.zeros(images, crop, crop, dtype=torch.int64)
    tags = torch.zeros(images, classes)
    side = crop // 3
    for i in range(images):
        for k in {i % classes, int(torch.randint(classes, (1,), generator=rng))}:
            y, x = (int(v) for v in torch.randint(crop - side, (2,), generator=rng))
            pixels[i, k % 3, y : y + side, x : x + side] += 0.7
            label[i, y : y + side, x : x + side] = k + 1
            tags[i, k] = 1.0
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in method.normalisation())
    views = {"view1": (pixels - mean) / std, "view2": (pixels.flip(-1) - mean) / std}
    views["local"] = views["view1"]
    base = getattr(method, "base", method)
    wanted = getattr(base, "view_names", ("view1",))
    if base is not method:
        wanted, views["fsae_strong"] = (*wanted, "fsae_strong"), (0.6 * pixels.flip(1) - mean) / std
    masks = label if getattr(method, "targets", ()) == ("segmentation",) else None
    return Batch(tuple(map(str, range(images))), {n: views.get(n, views["view1"]) for n in wanted}, tags, masks, None)


def train(method: Method, steps: int = STEPS, make_batch: Callable[[int], Batch] | None = None) -> Curve:
    """Each term's value at each step, None where it was not on; the engine's order of work."""
    plans = method.optimizers()
    for plan in plans:
        for group in plan.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    curve: Curve = {}
    for step in range(steps):
        progress = Progress(step, STEPS)
        torch.manual_seed(step)
        out = method.step(make_batch(step) if make_batch else batch(method, step % 2), progress)
        torch.stack(list(out.losses.values())).sum().backward()
        for plan in plans:
            for group in plan.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * plan.factor(step)
            plan.optimizer.step()
            plan.optimizer.zero_grad(set_to_none=True)
        method.update(out.stats, progress)
        for name, loss in out.losses.items():
            curve.setdefault(name, [None] * step).append(float(loss.detach()))
    return curve


def check(name: str, variant: str, curve: Curve, folder: Path = FOLDER, write: bool | None = None) -> None:
    """Compare with the golden file, or write it where `GOLDEN_WRITE` is set. Raises AssertionError with the fix."""
    write = bool(os.environ.get("GOLDEN_WRITE")) if write is None else write
    path = folder / f"{name}_{variant}.json"
    chosen = registry().choose(name)
    now = {k: v for k, v in versions(chosen.spec, chosen.base).items() if k not in ("loop", "scoring")}
    stored: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    same = stored is not None and equal(curve, stored["losses"])
    if stored is not None and not same:
        assert now != stored["versions"], (
            f"{path.name}: the curve changed and no version did; raise the version of what changed, "
            "then run GOLDEN_WRITE=1 pytest tests/methods"
        )
    if write:
        path.write_text(json.dumps({"versions": now, "losses": curve}, indent=1) + "\n")
        return
    assert stored is not None, f"{path.name} is missing; run GOLDEN_WRITE=1 pytest tests/methods"
    old = not same or now != stored["versions"]
    assert not old, f"{path.name} is old; run GOLDEN_WRITE=1 pytest tests/methods"


def equal(curve: Mapping[str, list[float | None]], stored: Mapping[str, list[float | None]]) -> bool:
    """Whether both hold the same terms at the same steps with values equal up to the relative tolerance."""
    if curve.keys() != stored.keys():
        return False

    def near(a: float | None, b: float | None) -> bool:
        if a is None or b is None:
            return a is b
        return abs(a - b) <= RELATIVE * max(abs(a), abs(b)) + 1e-7

    return all(len(curve[k]) == len(stored[k]) and all(map(near, curve[k], stored[k])) for k in curve)
