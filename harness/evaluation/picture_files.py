"""What pictures of a run are called in its store. No torch here: a page that only shows them does not wait for it."""

from __future__ import annotations

import hashlib

KIND = "picture"
"""What the table `artifacts` calls them."""
IMAGE, TRUTH = "image", "truth"
DIGITS = 16


def picture_path(key: str, what: str, image_id: str) -> str:
    """Where a picture of an image lies in the store; `what` is image, truth or a target."""
    return f"pictures/{key}/{what}-{hashlib.sha256(image_id.encode()).hexdigest()[:DIGITS]}.png"
