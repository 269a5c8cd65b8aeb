import dataclasses
from dataclasses import dataclass

import pytest

import harness.api.registry as module
from harness.api import entries
from harness.api.registry import Registry, registry
from harness.api.spec import MethodConfig, MethodSpec, Preset, knob
from harness.errors import BadInput, BrokenPlugin


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
ODD = dataclasses.replace(spec("other,x"), labels=("tag",), targets=("cams",))
LONELY = spec("plug", plugin=True, bases=("gone",))
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
    fresh.add("cam", "methods.cam.config:METHOD", "methods")
    return fresh


def test_builtin_methods_are_found_by_listing_the_folder():
    assert {"cam", "full", "fsr"} <= set(registry().names())


def test_unknown_names_get_the_nearest():
    with pytest.raises(BadInput, match="did you mean fsr"):
        registry().spec("fsrr")


def test_a_second_registration_shows_both_sources():
    fresh = toys()
    fresh.add("toy", f"{__name__}:TOY", "again")
    assert fresh.spec("toy") is TOY
    fresh.add("toy", "elsewhere:TOY", "there")
    with pytest.raises(BrokenPlugin, match=r"here.*there"):
        fresh.spec("toy")
    assert [c.name for c in fresh.all()] == ["cam", "cam+plug"]
    assert [p.where for p in fresh.left_out()] == ["method 'toy'"]


def test_a_spec_under_another_name_is_refused():
    fresh = toys()
    fresh.add("misnamed", f"{__name__}:WRONG", "here")
    with pytest.raises(BrokenPlugin, match="not a MethodSpec named 'misnamed'"):
        fresh.spec("misnamed")


def test_an_import_error_names_the_source():
    fresh = toys()
    fresh.add("gone", "no_such_module:METHOD", "package x")
    with pytest.raises(BrokenPlugin, match="package x"):
        fresh.spec("gone")


SPEC = """from dataclasses import dataclass
from harness.api.spec import MethodConfig, MethodSpec, knob


@dataclass(frozen=True, kw_only=True)
class C(MethodConfig):
    a: int = knob(1, "a", source="here")
    b: int = knob(1, "b", source="")


METHOD = MethodSpec(name="NAME", config=C, preset="m:p", build="m:b", labels=("tags",), targets=("cam",), title="t")
"""
UNSOURCED = """from harness.api.spec import MethodConfig, knob


class C(MethodConfig):
    a: int = knob(1, "a")
"""
BROKEN = {
    "syntax": ("METHOD = (\n", 1, "SyntaxError", "mend it there"),
    "import": ("import os\nimport no_such_thing\n", 2, "No module named 'no_such_thing'", "install no_such_thing"),
    "unsourced": (UNSOURCED, 5, "missing 1 required keyword-only argument: 'source'", "write knob(value"),
    "empty": (SPEC, 8, "knob b of method 'empty' has no source", "write b: ... = knob("),
    "plain": (
        SPEC.replace('knob(1, "b", source="")', "1"),
        8,
        "knob b of method 'plain' has no",
        "write b: ... = knob(",
    ),
    "short": (
        SPEC.replace("targets=", "target=").replace('source=""', 'source="x"'),
        11,
        "'target'",
        "docs/methods.md",
    ),
    "nothing": ("", 0, "has no attribute 'METHOD'", "docs/methods.md"),
}
"""By name: a module, the line of the problem, what is found, and the fix."""


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_one_problem_with_file_line_and_fix_and_the_others_go_on(name, tmp_path, monkeypatch):
    text, line, found, fix = BROKEN[name]
    file = tmp_path / f"broken_{name}.py"
    file.write_text(text.replace("NAME", name))
    monkeypatch.syspath_prepend(tmp_path)
    fresh = toys()
    fresh.add(name, f"broken_{name}:METHOD", "package x")
    with pytest.raises(BrokenPlugin) as caught:
        fresh.choose(name)
    (problem,) = caught.value.problems
    assert found in problem.found
    assert name in problem.found
    assert problem.where == (f"{file}:{line}" if line else f"broken_{name}:METHOD")
    assert fix in problem.fix
    assert [c.name for c in fresh.all()] == ["cam", "toy+plug", "toy"]
    assert fresh.left_out() == [problem]


def test_values_of_a_spec_that_no_study_could_use_are_refused():
    fresh = Registry()
    fresh.add("other,x", f"{__name__}:ODD", "here")
    with pytest.raises(BrokenPlugin) as caught:
        fresh.spec("other,x")
    assert [p.found for p in caught.value.problems] == [
        "has a name that is no word", "declares labels 'tag'", "declares targets 'cams'"
    ]  # fmt: skip


def test_a_plugin_whose_bases_are_not_there_is_left_out():
    fresh = Registry()
    fresh.add("plug", f"{__name__}:LONELY", "here")
    assert fresh.all() == []
    assert "stands on gone" in fresh.left_out()[0].found


def test_plugins_need_a_base_and_all_takes_the_cheapest():
    fresh = toys()
    with pytest.raises(BadInput, match=r"toy\+plug"):
        fresh.choose("plug")
    assert fresh.choose("toy+plug").name == "toy+plug"
    with pytest.raises(BadInput, match="not a plug-in"):
        fresh.choose("plug+toy")
    assert [c.name for c in fresh.all()] == ["cam", "toy+plug", "toy"]


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

    monkeypatch.setattr(entries, "entry_points", lambda group: (Point(),) if group == module.METHOD_GROUP else ())
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
