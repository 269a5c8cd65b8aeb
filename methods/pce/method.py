"""`pce`: cross-entropy on sparse labels."""

from __future__ import annotations

import dataclasses

from harness.api.method import BuildInfo
from methods.parts.bases.supervised import Supervised
from methods.parts.views.crop_views import CropViews
from methods.pce.config import PceConfig


class Pce(Supervised):
    """Partial cross-entropy. Loss term: `seg`."""

    config: PceConfig
    wanted = "points, scribbles, clicks20, clicks50, clicks100 or blocks"

    def views(self) -> CropViews:
        """The views of `full`; labelled pixels survive shrinking where `keep_labels` says so."""
        views = super().views()
        assert isinstance(views, CropViews)
        return dataclasses.replace(views, keep_labels=self.config.keep_labels)


def build(config: PceConfig, info: BuildInfo) -> Pce:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Pce(config, info)
