"""Keys of stages: digests of everything that decides what a stage leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.api.recipe import NETWORK, Stage, Train, own_name
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
            "images": digest_of(image_ids(stage.images, context.splits)),
        }
        roles = [role for name in stage.images for role in ROLES[name]]
        identity |= {"pixels": [pixels[role] for role in roles]} if pixels else {}
    return digest_of(identity)


ROLES = {"train": ("train",), "scored": ("tune", "report")}
"""By what a stage calls its images: the roles of the splits that they are in."""
