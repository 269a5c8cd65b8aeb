from dataclasses import dataclass

import pytest

import harness.api.registry as module
from harness.api.registry import Registry, registry
from harness.api.spec import MethodConfig, MethodSpec, knob
from harness.errors import BadInput, HarnessError


@dataclass(frozen=True, kw_only=True)
class ToyConfig(MethodConfig):
    rate: float = knob(0.5, "a rate", source="test")


def spec(name, **more):
    return MethodSpec(
        name=name, config=ToyConfig, preset="m:p", build="m:b", labels=("tags",), targets=("cam",), title="toy", **more
    )


TOY = spec("toy")
PLUGIN = spec("plug", plugin=True, bases=("toy", "cam"))
WRONG = spec("other")


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
