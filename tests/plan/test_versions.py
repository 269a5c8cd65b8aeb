"""Versions in a run's key: found from imports, stable under moves of files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.api.registry import registry
from harness.api.spec import MethodConfig, MethodSpec
from harness.plan import versions as module
from harness.plan.versions import key_name, part_versions, versions

ROOT = Path(__file__).parents[2]


def test_keys_of_built_in_methods_hold_the_parts_that_they_always_held() -> None:
    found = versions(registry().spec("cam"))
    assert found == {
        "cam": 1, "fitting": 1, "loop": 1, "methods.parts.backbones": 1, "methods.parts.cam": 1,
        "methods.parts.decoders": 1, "methods.parts.losses": 1, "methods.parts.par": 1, "methods.parts.pixels": 1,
        "methods.parts.pseudo": 1, "methods.parts.schedules": 1, "methods.parts.shapes_nets": 1,
        "methods.parts.single_stage": 1, "methods.parts.views": 1, "methods.parts.vit_segmenter": 1, "scoring": 1,
    }  # fmt: skip
    assert versions(registry().spec("fsr"))["methods.parts.energy"] == 2


def test_every_keyed_part_is_reached_by_its_method() -> None:
    for method, leaves in module._keyed()["methods"].items():
        reached = part_versions(f"methods.{method}.method")
        assert {f"methods.parts.{leaf}" for leaf in leaves} <= set(reached), method


def test_names_in_keys_are_unique_among_parts() -> None:
    parts = [p for p in (ROOT / "methods" / "parts").rglob("*.py") if "\nVERSION = " in p.read_text()]
    names = [key_name(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in parts]
    assert len(names) == len(set(names)) > 20


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a method whose network lies two imports away, one of them relative and inside a function."""
    package = tmp_path / "farpack"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "method.py").write_text("def build(config, info):\n    from .deep import net\n    return net\n")
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "net.py").write_text(
        "import farpack.deep.head\nfrom methods.parts.ops import energy\nVERSION = 1\n"
    )
    (package / "deep" / "head.py").write_text("raise RuntimeError('never imported')\nVERSION = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for cached in (module.part_versions, module._source, module._named):
        cached.cache_clear()
    yield package
    for cached in (module.part_versions, module._source, module._named):
        cached.cache_clear()
    for name in [n for n in sys.modules if n.startswith("farpack")]:
        del sys.modules[name]


def test_a_foreign_package_needs_no_list_and_none_of_its_parts_is_run(foreign: Path) -> None:
    spec = MethodSpec(
        name="far", config=MethodConfig, preset="farpack.method:preset", build="farpack.method:build",
        labels=("tags",), targets=("cam",), title="far",
    )  # fmt: skip
    found = versions(spec)
    assert found["farpack.deep.head"] == 3
    assert found["methods.parts.energy"] == 2
    assert "farpack.deep.net" not in found
    assert {k: v for k, v in part_versions("farpack.method").items() if k.startswith("farpack")} == {
        "farpack.deep.net": 1,
        "farpack.deep.head": 3,
    }
    assert "farpack.deep" not in sys.modules or "farpack.deep.head" not in sys.modules


def test_raising_a_part_beyond_the_keyed_ones_changes_keys(foreign: Path) -> None:
    spec = MethodSpec(
        name="far", config=MethodConfig, preset="farpack.method:preset", build="farpack.method:build",
        labels=("tags",), targets=("cam",), title="far",
    )  # fmt: skip
    before = versions(spec)
    (foreign / "deep" / "net.py").write_text("VERSION = 2\n")
    module.part_versions.cache_clear()
    after = versions(spec)
    assert after == {
        **{k: v for k, v in before.items() if k in ("far", "fitting", "loop", "scoring")},
        "farpack.deep.net": 2,
    }


def test_what_stages_of_a_recipe_name_is_part_of_the_method(foreign: Path) -> None:
    """A worker and a network that only strings name; those of the harness itself are not gone into."""
    (foreign / "recipe.py").write_text(
        "STAGES = ('farpack.masks:worker', 'harness.engine.stages.workers:predicted_maps', 'to: be', 'a:b:c')\n"
    )
    (foreign / "masks.py").write_text("from farpack.deep import head\n")
    spec = MethodSpec(
        name="far", config=MethodConfig, preset="farpack.method:preset", build="harness.testing.building:build",
        recipe="farpack.recipe:recipe", labels=("tags",), targets=("cam",), title="far",
    )  # fmt: skip
    assert module._named("farpack.recipe") == ("farpack.masks",)
    assert versions(spec)["farpack.deep.head"] == 3
