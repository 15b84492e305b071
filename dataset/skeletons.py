"""Joint layouts, read from the YAML files of `layouts/` or of the user.

    name: three
    joints: [head, spine, hip]           # joint numbers are positions in this list, from 0
    edges: [[head, spine], [spine, hip]]
    centre: spine
    origin: hip                          # default: the centre
    parents: {head: spine, spine: hip, hip: hip}   # default: shortest paths to the origin
    parts: [[head, spine], [hip]]        # default: none

A joint is given by its name or by its number. Each file in `layouts/` names its sources.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from reprlib import repr as _show  # abbreviates long and deep values
from typing import Any

from errors import UserError, nearest_hint
from safe_io import read_yaml_file

MAX_JOINT = 600  # of a layout; MediaPipe Holistic, with face and hands, has 543
FOLDER = Path(__file__).parent / "layouts"
Edges = tuple[tuple[int, int], ...]

_REQUIRED = ("name", "joints", "edges", "centre")
_KEYS = (*_REQUIRED, "origin", "parents", "parts")
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True)
class Skeleton:
    """One joint layout. Joints are identified by number, from 0.

    joints: their names. edges: undirected, without self-loops. centre: the joint to which the
    spatial partition measures distances. parents[v]: the joint at which bone v starts (the root is
    its own parent); empty if the layout has no bones. origin: the joint that relative coordinates
    are measured from. parts: groups for part attention, each joint in exactly one; empty if the
    layout has none.
    """

    name: str
    joints: tuple[str, ...]
    edges: Edges
    centre: int
    parents: tuple[int, ...] = ()
    origin: int = 1
    parts: tuple[tuple[int, ...], ...] = ()

    @property
    def num_joint(self) -> int:
        """V, the number of joints."""
        return len(self.joints)


def layout_names() -> list[str]:
    """Names of the built-in layouts, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def skeleton(name_or_path: str) -> Skeleton:
    """The built-in layout with this name, or the one in this .yaml file.

    Raises UserError naming the file, the key and what is allowed.
    """
    if not name_or_path.endswith((".yaml", ".yml")):
        return _built_in_layout(name_or_path)
    layout = _read(Path(name_or_path))
    if layout.name in layout_names() and layout != _built_in_layout(layout.name):
        raise UserError(
            f"{name_or_path}: name: {layout.name!r} is the name of a different built-in layout; "
            "choose another name"
        )
    return layout


def from_mapping(tree: Any, where: str) -> Skeleton:
    """A layout from the content of its YAML file, validated.

    where: the file, for messages. Raises UserError naming it, the key and what is allowed.
    """
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}: must contain keys and values: {', '.join(_KEYS)}")
    for key in tree:
        if key not in _KEYS:
            raise UserError(f"{where}: {key} is unknown; {nearest_hint(str(key), _KEYS)}")
    missing = [key for key in _REQUIRED if key not in tree]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} missing; required: {', '.join(_REQUIRED)}")
    if not isinstance(tree["name"], str) or not _NAME.fullmatch(tree["name"]):
        raise UserError(f"{where}: name is {_show(tree['name'])}; allowed: letters, digits, ._+-")
    joints = _Joints(where, tree["joints"])
    centre = joints.number(tree["centre"], "centre")
    origin = joints.number(tree.get("origin", centre), "origin")
    edges = _edges(joints, tree["edges"])
    towards_origin = _parents_towards(origin, edges)
    disconnected = [name for v, name in enumerate(joints.names) if v not in towards_origin]
    if disconnected:
        raise UserError(
            f"{where}: edges: no path from {joints.names[origin]} to {', '.join(disconnected)}; "
            "connect every joint"
        )
    default = tuple(parent for _, parent in sorted(towards_origin.items()))
    parents = _parents(joints, tree["parents"]) if "parents" in tree else default
    parts = _parts(joints, tree.get("parts", []))
    return Skeleton(tree["name"], joints.names, edges, centre, parents, origin, parts)


def to_mapping(layout: Skeleton) -> dict[str, Any]:
    """Plain data, with joints by name, from which `from_mapping` restores an equal layout."""
    names = layout.joints
    return {
        "name": layout.name,
        "joints": list(names),
        "edges": [[names[a], names[b]] for a, b in layout.edges],
        "centre": names[layout.centre],
        "origin": names[layout.origin],
        "parents": {names[child]: names[parent] for child, parent in enumerate(layout.parents)},
        "parts": [[names[v] for v in part] for part in layout.parts],
    }


@cache
def _built_in_layout(name: str) -> Skeleton:
    if name not in layout_names():
        raise UserError(
            f"skeleton {name!r} does not exist; {nearest_hint(name, layout_names())}, or the path "
            "of a .yaml file"
        )
    return _read(FOLDER / f"{name}.yaml")


def _read(path: Path) -> Skeleton:
    return from_mapping(read_yaml_file(path), str(path))


class _Joints:
    """The joints of a file that is being read: their names, validated, and their numbers."""

    def __init__(self, where: str, names: Any) -> None:
        self.where = where
        if not 2 <= len(self.entries(names, "joints")) <= MAX_JOINT:
            raise UserError(f"{where}: joints has {len(names)} names; allowed: 2 to {MAX_JOINT}")
        for number, name in enumerate(names):
            if not isinstance(name, str) or not name.strip():
                raise UserError(
                    f"{where}: joints[{number}] is {_show(name)}; allowed: a name (in quotes if "
                    "YAML would not parse it as text)"
                )
            if names.index(name) != number:
                raise UserError(f"{where}: joints: duplicate name {name!r}; names must be unique")
        self.names: tuple[str, ...] = tuple(names)
        self._number = {name: number for number, name in enumerate(names)}

    def entries(self, value: Any, key: str) -> list[Any]:
        """The value, which must be a list."""
        if not isinstance(value, list):
            raise UserError(f"{self.where}: {key} is {_show(value)}; allowed: a list")
        return value

    def number(self, value: Any, key: str) -> int:
        """The number of a joint given by name or by number."""
        if isinstance(value, str) and value in self._number:
            return self._number[value]
        if type(value) is int and 0 <= value < len(self.names):
            return value
        hint = f"allowed: the name of a joint, or its number 0 to {len(self.names) - 1}"
        if isinstance(value, str):
            hint = nearest_hint(value, self.names)
        raise UserError(f"{self.where}: {key} is {_show(value)}, which is not a joint; {hint}")

    def numbers(self, value: Any, key: str) -> tuple[int, ...]:
        """The numbers of a list of joints."""
        entries = self.entries(value, key)
        return tuple(self.number(joint, f"{key}[{n}]") for n, joint in enumerate(entries))


def _edges(joints: _Joints, value: Any) -> Edges:
    edges: dict[tuple[int, int], None] = {}  # in order
    for n, pair in enumerate(joints.entries(value, "edges")):
        where, edge = f"{joints.where}: edges[{n}]", joints.numbers(pair, f"edges[{n}]")
        if len(edge) != 2:
            raise UserError(f"{where} has {len(edge)} joints; allowed: 2")
        if edge[0] == edge[1]:
            raise UserError(f"{where} connects {joints.names[edge[0]]} to itself; remove it")
        if edge in edges or edge[::-1] in edges:
            raise UserError(f"{where} connects {' and '.join(map(str, pair))} again; remove it")
        edges[edge[0], edge[1]] = None
    return tuple(edges)


def _parents_towards(root: int, edges: Edges) -> dict[int, int]:
    """Joint -> the next joint on the shortest path to the root (on a tie, the lowest number). The
    root is its own parent; joints without a path are absent."""
    adjacent: dict[int, list[int]] = {root: []}
    for a, b in edges:
        adjacent.setdefault(a, []).append(b)
        adjacent.setdefault(b, []).append(a)
    parents, reached = {root: root}, [root]
    while reached:
        steps = [(near, far) for near in sorted(reached) for far in adjacent[near]]
        reached = []
        for near, far in steps:
            if far not in parents:
                parents[far] = near
                reached.append(far)
    return parents


def _parents(joints: _Joints, value: Any) -> tuple[int, ...]:
    """Validated to be one tree, or empty."""
    where, names = f"{joints.where}: parents", joints.names
    if not isinstance(value, Mapping):
        raise UserError(
            f"{where} is {_show(value)}; allowed: 'child: parent' for every joint, {{}} for a "
            "layout without bones, or remove the key"
        )
    found: dict[int, int] = {}
    for child, parent in value.items():
        number = joints.number(child, "parents: child")
        if number in found:
            raise UserError(f"{where} names {names[number]} twice")
        found[number] = joints.number(parent, f"parents: {child}")
    missing = [name for number, name in enumerate(names) if number not in found]
    if found and missing:
        raise UserError(
            f"{where} has {len(found)} of {len(names)} joints; add {', '.join(missing)} (the root "
            "is its own parent)"
        )
    _check_tree(found, names, where)
    return tuple(found[child] for child in sorted(found))


def _check_tree(parents: Mapping[int, int], names: Sequence[str], where: str) -> None:
    roots = [names[child] for child, parent in parents.items() if child == parent]
    if len(roots) > 1:
        raise UserError(f"{where}: {', '.join(roots)} are their own parents; allowed: one root")
    checked = {child for child, parent in parents.items() if child == parent}
    for child in parents:
        path: dict[int, None] = {}  # in order
        while child not in path and child not in checked:
            path[child] = None
            child = parents[child]
        if child in path:
            raise UserError(
                f"{where} form a cycle: {', '.join(names[v] for v in path)}; allowed: a tree with "
                "one root, which is its own parent"
            )
        checked |= path.keys()


def _parts(joints: _Joints, value: Any) -> tuple[tuple[int, ...], ...]:
    """Validated to contain every joint once, or empty."""
    where, entries = f"{joints.where}: parts", joints.entries(value, "parts")
    parts = [joints.numbers(part, f"parts[{n}]") for n, part in enumerate(entries)]
    flat = Counter(number for part in parts for number in part)
    twice = sorted(joints.names[v] for v, count in flat.items() if count > 1)
    if twice:
        raise UserError(f"{where} overlap: {', '.join(twice)}; allowed: one part per joint")
    absent = [name for number, name in enumerate(joints.names) if number not in flat]
    if parts and (absent or not all(parts)):
        what = f"{', '.join(absent)} not in any part" if absent else "an empty part"
        raise UserError(f"{where}: {what}; allowed: every joint in one part")
    return tuple(parts)
