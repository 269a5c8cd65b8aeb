"""The manifest beside written sparse labels: what they were made with, and a digest of every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.datasets.io.listing import leads_out, link_out
from harness.datasets.weak.drawn import load_json
from harness.errors import BadInput, Problem

MANIFEST = "manifest.json"
SHEET = "contact-sheet.png"


def manifest_text(content: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest; equal content gives equal bytes."""
    return (json.dumps(content, indent=1) + "\n").encode()


def read_manifest(folder: Path) -> tuple[str, dict[str, str]] | None:
    """Kind, and digest by image id, of the manifest in a folder; None where there is none, or not one of ours.

    Raises BadInput where it is no JSON.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    if leads_out(path, folder):
        raise BadInput(link_out(path))
    content = load_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        return None
    return str(content.get("kind")), {str(image_id): str(digest) for image_id, digest in content["files"].items()}


def digests(folder: Path, kind: str) -> dict[str, str] | None:
    """Digests by image id for labels of `kind`. Raises BadInput for a manifest of another kind."""
    found = read_manifest(folder)
    if found is None:
        return None
    if found[0] != kind:
        where, fix = str(folder / MANIFEST), f"write {kind} anew (weak-labels kind=...), or move the folder"
        raise BadInput(Problem(where, f"these are {found[0]}, {kind} are expected here", fix))
    return found[1]
