"""Keys of stages: digests of everything that decides what a stage leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.api.recipe import NETWORK, PerImage, Stage, Train, own_name
from harness.engine.context import Context
from harness.files import digest_of
from harness.plan.recipes import image_fields, image_ids, spec_of, training_fields
from harness.plan.versions import part_versions, versions


def stage_key(stage: Stage, context: Context, run_versions: Mapping[str, int]) -> str:
    """Digest of the config fields and knobs that a stage reads, of its inputs, versions, images and pretrained weights.

    `run_versions` are those of the run's key.
    """
    run, pixels = context.run, context.data.images
    identity: dict[str, Any] = {
        "stage": own_name(stage),
        "version": stage.version,
        "inputs": [context.digest_of(name) for name in stage.reads],
    }
    if isinstance(stage, Train):
        known = run_versions if stage.owner == "own" else versions(spec_of(run, stage))
        identity |= {
            "fields": training_fields(run, stage),
            "extra": sorted(stage.extra),
            "train": context.data.train,
            "weights": context.machine.weights_digest
            if stage.network == NETWORK
            else run.networks[stage.network].get("weights", ""),
            # The one in keys of runs that is no version of training.
            "versions": {name: version for name, version in known.items() if name != "scoring"},
        }
        identity |= {"pixels": pixels["train"]} if pixels else {}
    else:
        module = stage.does.partition(":")[0]
        identity |= {
            "fields": image_fields(run, stage),
            "does": stage.does,
            "versions": {} if module.startswith("harness.") else dict(part_versions(module)),
            "images": digest_of(image_ids(images_of(stage, context), context.splits)),
        }
        roles = [role for name in images_of(stage, context) for role in ROLES[name]]
        identity |= {"pixels": [pixels[role] for role in roles]} if pixels else {}
        identity |= {"crf": stage.crf} if stage.crf else {}
    return digest_of(identity)


ROLES = {"train": ("train",), "scored": ("tune", "report")}
"""By what a stage calls its images: the roles of the splits that they are in."""


def images_of(stage: PerImage, context: Context) -> tuple[str, ...]:
    """Which images a stage goes through: those that it declares; and where it only writes what a network predicts, and
    `keep` names maps, those trained on too."""
    more = ("train",) if stage.predicts and "maps" in context.machine.keep else ()
    return tuple(dict.fromkeys((*stage.images, *more)))
