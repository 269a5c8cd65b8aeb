"""Finds methods by name: built-in ones by listing `methods/*/config.py`, others by entry point; imports lazily."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from harness.api.spec import MethodSpec, Preset, resolve
from harness.errors import BadInput, HarnessError, Problem, nearest

METHOD_GROUP = "wsss_harness.methods"
SPACE_GROUP = "wsss_harness.search_spaces"


@dataclass(frozen=True)
class Entry:
    """Where a method is defined; its module is imported only when the spec is asked for."""

    name: str
    target: str
    source: str


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

    def add(self, name: str, target: str, source: str) -> None:
        """Register `module:object` under a name. Raises HarnessError if the name is taken by another source."""
        old = self._entries.get(name)
        if old and old.target != target:
            raise HarnessError(
                f"method {name!r} is registered twice: {old.target} ({old.source}) and {target} ({source}); "
                "rename one of them"
            )
        self._entries[name] = Entry(name, target, source)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._entries)

    def spec(self, name: str) -> MethodSpec:
        """The spec of one method. Raises BadInput with the nearest names for an unknown one."""
        if name not in self._entries:
            raise BadInput(Problem(f"method {name!r}", "is not registered", nearest(name, self.names())))
        if name not in self._specs:
            entry = self._entries[name]
            try:
                spec = resolve(entry.target)
            except Exception as e:
                raise HarnessError(f"method {name!r} from {entry.source} cannot be imported: {e!r}") from e
            if not isinstance(spec, MethodSpec) or spec.name != name:
                raise HarnessError(f"{entry.target} ({entry.source}) is not a MethodSpec named {name!r}: {spec!r}")
            self._specs[name] = spec
        return self._specs[name]

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

    def _base(self, word: str, base_name: str, name: str) -> MethodSpec:
        """The base of `base_name+name`. Raises BadInput for one that cannot be."""
        first, plus, second = base_name.rpartition("+")
        if plus or self.spec(base_name).plugin:
            fix = f"run {first}+{second} and {first}+{name}" if first else f"write base+{base_name} or base+{name}"
            raise BadInput(Problem(f"method {word!r}", "stacks plug-ins: one stands on one base", fix))
        base = self.spec(base_name)
        if "cam" not in base.targets:
            able = [n for n in self.names() if "cam" in self.spec(n).targets and not self.spec(n).plugin]
            fix = "a base that makes CAMs: " + ", ".join(f"{n}+{name}" for n in able)
            raise BadInput(Problem(f"method {word!r}", f"{base_name} makes {', '.join(base.targets)} and no CAMs", fix))
        return base

    def all(self) -> list[Chosen]:
        """Every registered method, plug-ins on their cheapest base."""
        chosen = []
        for name in self.names():
            spec = self.spec(name)
            chosen.append(Chosen(spec, self.spec(spec.bases[0]) if spec.plugin else None))
        return chosen

    def space_target(self, name: str) -> str | None:
        """`module:object` of a method's search space, or None when it has none."""
        for point in _points(SPACE_GROUP):
            if point.name == name:
                return point.value
        spec = self.spec(name)
        if spec.space:
            return spec.space
        module = f"search_spaces.{name.replace('-', '_')}"
        return f"{module}:SPACE" if importlib.util.find_spec(module) else None


def _points(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


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
        for point in _points(METHOD_GROUP):
            dist = point.dist.name if point.dist else "?"
            fresh.add(point.name, point.value, f"entry point of package {dist}")
        _built = fresh
    return _built
