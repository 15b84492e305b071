"""Numbered YAML files -> one validated, frozen Config.

A file may name a `base:` and state only what differs. Files that it names are looked for beside it
first. An unknown key is an error that suggests the nearest known one. There are no heavy imports
here, so `main.py --help` stays fast.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from configs.checks import ConfigError
from configs.model import model_args_type
from configs.schema import Config
from errors import nearest_hint
from safe_io import read_yaml, read_yaml_file

FOLDER = Path(__file__).parent
_EXPONENT = re.compile(r"[+-]?\d+e[+-]?\d+", re.IGNORECASE)


def load(name: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """The config with this number in `configs/`, or the one in this .yaml file.

    overrides: full keys such as 'dataset_args.ntu.num_frame' to values, applied last.
    Raises ConfigError naming the file, the key and what is allowed.
    """
    path = _find(name)
    tree = _read_with_base(path, seen=())
    # model_type first: a change of network family resets model_args before they are overridden.
    for key, value in sorted((overrides or {}).items(), key=lambda item: item[0] != "model_type"):
        _set(tree, key, value)
    return _build(tree, str(tree.pop("name", name)), path.name)


def parse_set(items: Sequence[str]) -> dict[str, Any]:
    """['a.b=64', 'c=[1, 2]'] -> {'a.b': 64, 'c': [1, 2]}; values are parsed as YAML."""
    parsed = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {item!r} is not of the form key=value, e.g. seed=2")
        parsed[key.strip()] = read_yaml(text, f"--set {item[:80]!r}")
    return parsed


def dump(config: Config) -> str:
    """The resolved config as YAML that `load` reads back to an equal Config."""
    plain = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples become lists
    return yaml.safe_dump(plain, sort_keys=False)


def _find(name: str, folder: Path | None = None) -> Path:
    """The file of a number or of a path; a relative `base:` is resolved against `folder`."""
    is_path = name.endswith((".yaml", ".yml"))
    path = (folder or Path()) / name if is_path else FOLDER / f"{name}.yaml"
    if is_path and not os.path.lexists(path):
        raise ConfigError(f"{path}: no such file; allowed: a number in configs/, or a YAML file")
    if not is_path and not os.path.isfile(path):
        known = sorted(p.stem for p in FOLDER.glob("*.yaml"))
        raise ConfigError(f"config {name!r} does not exist ({path}); {nearest_hint(name, known)}")
    return path


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise ConfigError(f"{path.name}: base: is circular")
    tree = read_yaml_file(path)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must contain keys and values, e.g. 'dataset: ntu-xsub'")
    base = tree.pop("base", None)
    if base is None and "name" in tree:  # written by `dump`
        return tree
    tree = _with_paths(tree, path.parent)
    if base is None:
        return tree
    below = _read_with_base(_find(str(base), path.parent), (*seen, path))
    if model_changes(below, tree):
        below.pop("model_args", None)
    return _merge(below, tree)


def _with_paths(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with the path of each file or folder that it names and that exists in `folder`; the
    others remain relative to the current folder."""
    found = dict(tree)
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found[key] = _with_paths(value, folder)
        elif isinstance(value, str) and _is_path(key, value):
            beside = os.path.abspath(folder / value)
            if os.path.exists(beside) and beside != os.path.abspath(value):
                inside = beside.startswith(os.path.join(os.getcwd(), ""))
                found[key] = os.path.relpath(beside) if inside else beside
    return found


def _is_path(key: Any, value: str) -> bool:
    """Whether a key's value is the path of an input, and not the name of a built-in list."""
    if key in ("skeleton", "class_names"):
        return "/" in value or bool(os.path.splitext(value)[1])
    return isinstance(key, str) and key.endswith("_path") and bool(value)


def model_changes(base: Mapping[str, Any], delta: Mapping[str, Any]) -> bool:
    """Whether `delta` selects a model of another family, which resets model_args."""
    names = [tree.get("model_type", Config.model_type) for tree in (base, delta)]
    return "model_type" in delta and model_args_type(names[0]) != model_args_type(names[1])


def _merge(base: dict[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in delta.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    if key == "model_type" and model_changes(tree, {key: value}):
        tree.pop("model_args", None)
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{key}: {parent} is a value, not a group of keys")
    tree[leaf] = value


def _build(tree: dict[str, Any], name: str, file: str) -> Config:
    types = _field_types(Config)
    types["model_args"] = model_args_type(tree.get("model_type", Config.model_type))
    tree.setdefault("model_args", {})
    try:
        return _fill(Config, {**tree, "name": name}, types, prefix="")
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _fill(cls: type, tree: Any, types: Mapping[str, Any], prefix: str) -> Any:
    """A dataclass from a dict: known keys only, values converted to the annotated type."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{prefix[:-1]} is {tree!r}; allowed: a group of keys")
    values = {}
    for key, value in tree.items():
        if key not in types:
            raise ConfigError(f"{prefix}{key} is unknown; {nearest_hint(key, types)}")
        kind = types[key]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            values[key] = _fill(kind, value, _field_types(kind), f"{prefix}{key}.")
        else:
            values[key] = _convert(value, kind, prefix + key)
    return cls(**values)


def _field_types(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _convert(value: Any, kind: Any, key: str) -> Any:
    """A YAML value as the annotated type, or ConfigError. An int is accepted for a float; nothing
    else is converted implicitly (a quoted number is text, which is an error)."""
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{key} is {value!r}; allowed: a list")
        if inner[-1] is Ellipsis:
            inner = (inner[0],) * len(value)
        if len(inner) != len(value):
            raise ConfigError(f"{key} has {len(value)} entries; allowed: {len(inner)}")
        return tuple(_convert(v, k, f"{key}[{n}]") for n, (v, k) in enumerate(zip(value, inner)))
    if kind is float and not isinstance(value, bool):
        if isinstance(value, int) and abs(value) < 2**53:
            value = float(value)
        elif isinstance(value, str) and _EXPONENT.fullmatch(value):
            value = float(value)  # YAML 1.1 parses 1e-3 as text, because it has no dot
    if kind is str and value is None:
        return ""
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{key} is {value!r}; allowed: {kind.__name__}")
    if kind is float and not -1e30 < value < 1e30:
        raise ConfigError(f"{key} is {value!r}; allowed: a finite number")
    return value
