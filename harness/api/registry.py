"""Finds methods by name: built-in ones by listing `methods/*/config.py`, others by entry point; imports lazily."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from harness.api.blame import blamed_on, spec_problems
from harness.api.entries import Entry, entries_of
from harness.api.spec import MethodSpec, Preset, resolve
from harness.errors import BadInput, BrokenPlugin, Problem, nearest

METHOD_GROUP = "wsss_harness.methods"
SPACE_GROUP = "wsss_harness.search_spaces"
CAM = "cam"
"""The target that plug-ins ask a base for."""


@dataclass(frozen=True)
class Chosen:
    """A method as written on the command line: `fsr`, or a plug-in on its base, `sipe+fsae`."""

    spec: MethodSpec
    base: MethodSpec | None = None

    @property
    def name(self) -> str:
        """The command-line word, which is also the name in every table."""
        return f"{self.base.name}+{self.spec.name}" if self.base else self.spec.name

    @property
    def trained(self) -> MethodSpec:
        """Whose recipe and targets hold: the method's own, or the base's where the plug-in trains that."""
        return self.base if self.base is not None and self.spec.trains_base else self.spec

    @property
    def targets(self) -> tuple[str, ...]:
        """What is produced, in order cam, pseudo, segmentation; the last one is the objective."""
        return self.trained.targets

    def preset(self, family: str, tier: str, variant: str) -> Preset:
        """The preset for a dataset family, tier and variant: of a plug-in that trains its base, at the base's sizes."""
        own: Preset = resolve(self.spec.preset)(family, tier, variant)
        if self.trained is self.spec:
            return own
        sizes = self.base_preset(family, tier, variant)
        return replace(sizes, knobs=own.knobs, trials=own.trials, seeds=own.seeds)

    def base_preset(self, family: str, tier: str, variant: str) -> Preset:
        """That of a plug-in's base, `default` where it lacks the variant. Raises TypeError where there is no base."""
        if self.base is None:
            raise TypeError(f"{self.name} has no base")
        known = variant if variant in self.base.variants else "default"
        preset: Preset = resolve(self.base.preset)(family, tier, known)
        return preset


class Registry:
    """Names of methods to specs. A name that is registered twice is an error that shows both sources."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._specs: dict[str, MethodSpec] = {}
        self._broken: dict[str, BrokenPlugin] = {}

    def add(self, name: str, target: str, source: str) -> None:
        """Register `module:object` under a name. A name that two sources claim is broken: neither can be used."""
        old = self._entries.get(name)
        if old and old.target != target:
            found = f"is registered twice: {old.target} ({old.source}) and {target} ({source})"
            self._broken[name] = BrokenPlugin(Problem(f"method {name!r}", found, "rename one of them"))
        self._entries.setdefault(name, Entry(name, target, source))

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._entries)

    def spec(self, name: str) -> MethodSpec:
        """The spec of one method. Raises BadInput with the nearest names for an unknown one, BrokenPlugin for one whose
        own code cannot be used."""
        if name not in self._entries:
            raise BadInput(Problem(f"method {name!r}", "is not registered", nearest(name, self.names())))
        if name not in self._specs and name not in self._broken:
            try:
                self._specs[name] = _read(self._entries[name])
            except BrokenPlugin as e:
                self._broken[name] = e
        if name in self._broken:
            raise self._broken[name]
        return self._specs[name]

    def specs(self) -> list[MethodSpec]:
        """Every method that can be used."""
        return [self._specs[name] for name in self.names() if self.broken(name) is None]

    def broken(self, name: str) -> BrokenPlugin | None:
        """Why a registered method cannot be used; None where it can."""
        try:
            self.spec(name)
        except BrokenPlugin as e:
            return e
        return None

    def blamed(self, spec: MethodSpec) -> AbstractContextManager[None]:
        """Errors of a method's own code as BrokenPlugin, with file, line and fix."""
        return blamed_on("method", self._entries[spec.name])

    def origin(self, name: str) -> str:
        """`file:line` where a method's config class is defined."""
        cls = self.spec(name).config
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"

    def choose(self, word: str) -> Chosen:
        """A method from its command-line word.

        Raises BadInput for unknown names, for stacks of plug-ins, and for those without base or on one without CAMs.
        """
        base_name, plus, name = word.rpartition("+")
        spec = self.spec(name)
        if plus and not spec.plugin:
            raise BadInput(Problem(f"method {word!r}", f"{name} is not a plug-in", f"write methods={name}"))
        if base_name:
            return Chosen(spec, self._base(word, base_name, name))
        if spec.plugin:
            raise BadInput(
                Problem(
                    f"method {word!r}",
                    "is a plug-in and needs a base",
                    f"write base+{name}, for instance "
                    + ", ".join(f"{base}+{name}" for base in spec.bases or self.names()[:1]),
                )
            )
        return Chosen(spec)

    def find(self, word: str) -> Chosen | None:
        """As `choose`, None where it raises: stores hold rows of other programs and of methods that are gone."""
        try:
            return self.choose(word)
        except BadInput:
            return None

    def _base(self, word: str, base_name: str, name: str) -> MethodSpec:
        """The base of `base_name+name`. Raises BadInput for one that cannot be."""
        first, plus, second = base_name.rpartition("+")
        if plus or self.spec(base_name).plugin:
            fix = f"run {first}+{second} and {first}+{name}" if first else f"write base+{base_name} or base+{name}"
            raise BadInput(Problem(f"method {word!r}", "stacks plug-ins: one stands on one base", fix))
        base = self.spec(base_name)
        if CAM not in base.targets:
            fix = "a base that makes CAMs: " + ", ".join(f"{n}+{name}" for n in self._able())
            raise BadInput(Problem(f"method {word!r}", f"{base_name} makes {', '.join(base.targets)} and no CAMs", fix))
        return base

    def _able(self) -> list[str]:
        """Methods that can be a base."""
        return [spec.name for spec in self.specs() if CAM in spec.targets and not spec.plugin]

    def all(self) -> list[Chosen]:
        """Every method that can be used, plug-ins on their cheapest base that can."""
        usable = {spec.name: spec for spec in self.specs()}
        chosen = []
        for spec in usable.values():
            bases = [usable[b] for b in spec.bases or self._able() if b in usable]
            if bases or not spec.plugin:
                chosen.append(Chosen(spec, bases[0] if spec.plugin else None))
        return chosen

    def left_out(self) -> list[Problem]:
        """What `all` leaves out, and why."""
        broken = [e for name in self.names() if (e := self.broken(name)) is not None]
        taken = {c.spec.name for c in self.all()}
        lonely = [spec for spec in self.specs() if spec.name not in taken]
        return [p for e in broken for p in e.problems] + [
            Problem(
                f"method {s.name!r}",
                f"stands on {', '.join(s.bases) or 'a base'}: none can be used",
                "install one of them",
            )
            for s in lonely
        ]

    def space_target(self, name: str) -> str | None:
        """`module:object` of a method's search space, or None when it has none."""
        for entry in entries_of(SPACE_GROUP):
            if entry.name == name:
                return entry.target
        spec = self.spec(name)
        if spec.space:
            return spec.space
        module = f"search_spaces.{name.replace('-', '_')}"
        return f"{module}:SPACE" if importlib.util.find_spec(module) else None


def _read(entry: Entry) -> MethodSpec:
    """The spec behind an entry. Raises BrokenPlugin for what cannot be imported or used."""
    with blamed_on("method", entry):
        spec = resolve(entry.target)
    if not isinstance(spec, MethodSpec) or spec.name != entry.name:
        what = f"a spec named {spec.name!r}" if isinstance(spec, MethodSpec) else repr(spec)
        found = f"is not a MethodSpec named {entry.name!r} but {what} ({entry.source})"
        raise BrokenPlugin(Problem(entry.target, found, f'write METHOD = MethodSpec(name="{entry.name}", ...)'))
    problems = spec_problems(spec, entry.source)
    if problems:
        raise BrokenPlugin(problems)
    return spec


_built: Registry | None = None


def registry() -> Registry:
    """The registry of this process, built once from the `methods` folder and from entry points."""
    global _built
    if _built is None:
        fresh = Registry()
        methods = importlib.import_module("methods")
        for folder in sorted(Path(str(methods.__file__)).parent.glob("*/config.py")):
            module = folder.parent.name
            fresh.add(module.replace("_", "-"), f"methods.{module}.config:METHOD", str(folder))
        for entry in entries_of(METHOD_GROUP):
            fresh.add(entry.name, entry.target, entry.source)
        _built = fresh
    return _built
