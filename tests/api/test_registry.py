from dataclasses import dataclass

import pytest

import harness.api.registry as module
from harness.api.registry import Registry, registry
from harness.api.spec import MethodConfig, MethodSpec, Preset, knob
from harness.errors import BadInput, HarnessError


@dataclass(frozen=True, kw_only=True)
class ToyConfig(MethodConfig):
    rate: float = knob(0.5, "a rate", source="test")


def spec(name, targets=("cam",), **more):
    return MethodSpec(
        name=name,
        config=ToyConfig,
        preset=f"{__name__}:{name}_preset",
        build="m:b",
        labels=("tags",),
        targets=targets,
        title="toy",
        **more,
    )


TOY = spec("toy", targets=("cam", "segmentation"))
PLUGIN = spec("plug", plugin=True, bases=("toy", "cam"))
MORE = spec("more", plugin=True, trains_base=True, bases=("toy",))
SEGMENTER = spec("masks-only", targets=("segmentation",))
WRONG = spec("other")
SIZES = {"backbone": "b", "decoder": "d", "batch": 2, "group": 2, "card_iterations": 9}
PRESETS = {
    "toy": Preset(crop=48, iterations=7, knobs={"rate": 0.7}, **SIZES),
    "plug": Preset(crop=96, iterations=8, knobs={"rate": 0.2}, **SIZES),
    "more": Preset(crop=32, iterations=9, knobs={"rate": 0.1}, seeds=5, **SIZES),
}


def toy_preset(family, tier, variant):
    return PRESETS["toy"]


def plug_preset(family, tier, variant):
    return PRESETS["plug"]


def more_preset(family, tier, variant):
    return PRESETS["more"]


def toys() -> Registry:
    fresh = Registry()
    fresh.add("toy", f"{__name__}:TOY", "here")
    fresh.add("plug", f"{__name__}:PLUGIN", "here")
    return fresh


def test_builtin_methods_are_found_by_listing_the_folder():
    assert {"cam", "full", "fsr"} <= set(registry().names())


def test_unknown_names_get_the_nearest():
    with pytest.raises(BadInput, match="did you mean fsr"):
        registry().spec("fsrr")


def test_a_second_registration_shows_both_sources():
    fresh = toys()
    with pytest.raises(HarnessError, match=r"here.*there"):
        fresh.add("toy", "elsewhere:TOY", "there")
    fresh.add("toy", f"{__name__}:TOY", "again")


def test_a_spec_under_another_name_is_refused():
    fresh = toys()
    fresh.add("misnamed", f"{__name__}:WRONG", "here")
    with pytest.raises(HarnessError, match="not a MethodSpec named 'misnamed'"):
        fresh.spec("misnamed")


def test_an_import_error_names_the_source():
    fresh = toys()
    fresh.add("gone", "no_such_module:METHOD", "package x")
    with pytest.raises(HarnessError, match="package x"):
        fresh.spec("gone")


def test_plugins_need_a_base_and_all_takes_the_cheapest():
    fresh = toys()
    with pytest.raises(BadInput, match=r"toy\+plug"):
        fresh.choose("plug")
    assert fresh.choose("toy+plug").name == "toy+plug"
    with pytest.raises(BadInput, match="not a plug-in"):
        fresh.choose("plug+toy")
    assert [c.name for c in fresh.all()] == ["toy+plug", "toy"]


def test_a_plugin_stands_on_one_base_that_makes_cams():
    fresh = toys()
    fresh.add("more", f"{__name__}:MORE", "here")
    fresh.add("masks-only", f"{__name__}:SEGMENTER", "here")
    for word, fix in (("toy+plug+more", r"toy\+plug and toy\+more"), ("plug+more", r"base\+plug or base\+more")):
        with pytest.raises(BadInput, match=rf"(?s){word.replace('+', chr(92) + '+')}.*one stands on one base.*{fix}"):
            fresh.choose(word)
    with pytest.raises(BadInput, match=r"(?s)makes segmentation and no CAMs.*toy\+plug"):
        fresh.choose("masks-only+plug")
    with pytest.raises(BadInput, match="did you mean toy"):
        fresh.choose("toyy+plug")
    for word in ("full+fsae", "pce+fsae"):
        with pytest.raises(BadInput, match=r"(?s)no CAMs.*cam\+fsae, fsr\+fsae"):
            registry().choose(word)


def test_a_plugin_that_trains_its_base_has_the_bases_work():
    fresh = toys()
    fresh.add("more", f"{__name__}:MORE", "here")
    before, beside = fresh.choose("toy+plug"), fresh.choose("toy+more")
    assert (before.trained.name, before.targets) == ("plug", ("cam",))
    assert (beside.trained.name, beside.targets) == ("toy", ("cam", "segmentation"))
    assert before.preset("voc", "lab", "default") == PRESETS["plug"]
    found = beside.preset("voc", "lab", "default")
    assert (found.crop, found.iterations, found.knobs, found.seeds) == (48, 7, {"rate": 0.1}, 5)
    assert fresh.choose("toy").preset("voc", "lab", "default") == PRESETS["toy"]
    with pytest.raises(TypeError, match="toy has no base"):
        fresh.choose("toy").base_preset("voc", "lab", "default")


def test_origin_is_file_and_line():
    assert "methods/fsr/config.py:" in registry().origin("fsr")


def test_entry_points_are_registered(monkeypatch):
    class Point:
        name, value, dist = "toy", f"{__name__}:TOY", None

    monkeypatch.setattr(module, "_points", lambda group: (Point(),) if group == module.METHOD_GROUP else ())
    monkeypatch.setattr(module, "_built", None)
    assert "toy" in module.registry().names()
    assert module.registry().spec("toy") is TOY


def test_no_torch_is_imported_to_list_methods():
    import subprocess
    import sys

    code = (
        "import sys; from harness.api.registry import registry; r = registry(); [r.spec(n) for n in r.names()]; "
        "from harness.cli.parsing import parse; from harness.cli.run_words import Words; "
        "parse(['methods=all'], Words, 'sweep', r.names()); "
        "sys.exit(int('torch' in sys.modules or 'ray' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
