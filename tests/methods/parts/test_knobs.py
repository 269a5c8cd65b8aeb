"""Rules of the shared knobs, and that checking words needs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from methods.parts import knobs
from methods.parts.sizes import sized_preset


def test_intervals():
    assert knobs.between("x", 0.0, 0, 1) == []
    assert (
        str(knobs.between("x", 0.0, 0, 1, open_low=True)[0]) == "x: 0 is outside (0,1]\n    fix: give a number in (0,1]"
    )
    assert knobs.between("x", float("nan"), 0, 1)
    assert knobs.not_negative("w", 0.0) == []
    assert knobs.not_negative("w", float("inf"))
    assert knobs.positive("lr", 0.0)
    assert knobs.ordered("low", 0.3, "high", 0.3)[0].found == "0.3 is not below high=0.3"
    assert knobs.list_of("scales", (), 0.1, 8)
    assert knobs.list_of("scales", (1.0, 0.05), 0.1, 8)
    assert knobs.list_of("scales", (1.0, 8.5), 0.1, 8)[0].fix == "at least one number, each in [0.1,8]"
    assert knobs.list_of("scales", (8.0, 0.5), 0.1, 8) == []
    assert [knobs.counted("n", n) == [] for n in (0, 1, 65536, 65537)] == [False, True, True, False]
    assert [knobs.steps("T", n) == [] for n in (0, 1, 80000)] == [False, True, True]
    assert [knobs.blocks("b", n) == [] for n in (0, 1, 64, 65)] == [False, True, True, False]


def test_every_knob_says_what_it_is_and_where_it_comes_from():
    from methods.cam.config import CamConfig
    from methods.fsr.config import FsrConfig
    from methods.full.config import FullConfig

    for config in (CamConfig, FsrConfig, FullConfig):
        for name, field in config.knobs().items():
            assert field.metadata["doc"], name
            assert field.metadata["source"], name


def test_shapes_tiers_differ_in_length_and_crop_only():
    smoke, lab, paper = (sized_preset("shapes", t, {}, smoke_iterations=100, lab_iterations=7) for t in
                         ("smoke", "lab", "paper"))  # fmt: skip
    assert [p.iterations for p in (smoke, lab, paper)] == [100, 400, 2000]
    assert [p.crop for p in (smoke, lab, paper)] == [80, 96, 96]
    assert {(p.batch, p.group, p.backbone) for p in (smoke, lab, paper)} == {(16, 16, "shapes_vit")}
    assert (paper.trials, paper.seeds, smoke.trials, smoke.seeds) == (20, 3, 2, 1)
    with pytest.raises(ValueError, match="unknown tier"):
        sized_preset("voc", "huge", {}, smoke_iterations=1, lab_iterations=1)


def test_configs_presets_and_rules_import_no_torch():
    code = (
        "import sys\n"
        "for m in ('cam', 'full', 'fsr'):\n"
        "    __import__(f'methods.{m}.config'); __import__(f'methods.{m}.presets')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
