"""Joint layouts: what the YAML files of `layouts/`, and files of the user's, say about a skeleton.

    name: three
    joints: [head, spine, hip]           # joint numbers are the places in this list, from 0
    edges: [[head, spine], [spine, hip]]
    centre: spine
    origin: hip                          # may be left out: the centre
    parents: {head: spine, spine: hip, hip: hip}   # may be left out: the ways to the origin
    parts: [[head, spine], [hip]]        # may be left out: none

A joint is given by its name or by its number. `layouts/` names the source of each of its tables.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from errors import UserError, nearest_hint
from safe_io import read_yaml_file

FOLDER = Path(__file__).parent / "layouts"
Links = tuple[tuple[int, int], ...]

_REQUIRED = ("name", "joints", "edges", "centre")
_KEYS = (*_REQUIRED, "origin", "parents", "parts")
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True)
class Skeleton:
    """One joint layout. Joints are meant by their numbers, from 0.

    joints: their names. links: undirected bones, without self links. centre: the joint that the
    spatial partition measures distance to. parents[v]: the joint that bone v starts from (the
    root is its own parent); empty where no bones are known. origin: the joint that relative
    coordinates are measured from. parts: groups for part attention, each joint in one of them;
    empty where the layout has none.
    """

    name: str
    joints: tuple[str, ...]
    links: Links
    centre: int
    parents: tuple[int, ...] = ()
    origin: int = 1
    parts: tuple[tuple[int, ...], ...] = ()

    @property
    def num_joint(self) -> int:
        """V, the number of joints."""
        return len(self.joints)


def layout_names() -> list[str]:
    """Names of the layouts that come with the project, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def skeleton(name_or_path: str) -> Skeleton:
    """The layout of that name that comes with the project, or of a path to a .yaml file.

    Raises UserError naming the file, the key and what is allowed.
    """
    if not name_or_path.endswith((".yaml", ".yml")):
        return _own_layout(name_or_path)
    layout = _read(Path(name_or_path))
    if layout.name in layout_names() and layout != _own_layout(layout.name):
        raise UserError(
            f"{name_or_path}: name: {layout.name!r} is a layout that comes with the project, and "
            "not this one; choose another name"
        )
    return layout


def from_mapping(tree: Any, where: str) -> Skeleton:
    """A layout from the content of its YAML file, checked.

    where: the file, for messages. Raises UserError naming it, the key and what is allowed.
    """
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}: must hold keys and values: {', '.join(_KEYS)}")
    for key in tree:
        if key not in _KEYS:
            raise UserError(f"{where}: {key} is unknown; {nearest_hint(str(key), _KEYS)}")
    missing = [key for key in _REQUIRED if key not in tree]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} missing; needed: {', '.join(_REQUIRED)}")
    if not isinstance(tree["name"], str) or not _NAME.fullmatch(tree["name"]):
        raise UserError(f"{where}: name is {_show(tree['name'])}; allowed: letters, digits, ._+-")
    joints = _Joints(where, tree["joints"])
    centre = joints.number(tree["centre"], "centre")
    origin = joints.number(tree.get("origin", centre), "origin")
    links = _links(joints, tree["edges"])
    way = _parents_towards(origin, links, len(joints.names))
    loose = [joints.names[v] for v, parent in enumerate(way) if parent is None]
    if loose:
        raise UserError(
            f"{where}: edges: no way leads from {joints.names[origin]} to {', '.join(loose)}; "
            "link every joint"
        )
    parents = _parents(joints, tree["parents"]) if "parents" in tree else tuple(way)
    parts = _parts(joints, tree.get("parts", []))
    return Skeleton(tree["name"], joints.names, links, centre, parents, origin, parts)


def to_mapping(layout: Skeleton) -> dict[str, Any]:
    """Plain data, joints by name, that `from_mapping` reads back to an equal layout."""
    names = layout.joints
    return {
        "name": layout.name,
        "joints": list(names),
        "edges": [[names[a], names[b]] for a, b in layout.links],
        "centre": names[layout.centre],
        "origin": names[layout.origin],
        "parents": {names[child]: names[parent] for child, parent in enumerate(layout.parents)},
        "parts": [[names[v] for v in part] for part in layout.parts],
    }


@cache
def _own_layout(name: str) -> Skeleton:
    if name not in layout_names():
        raise UserError(
            f"skeleton {name!r} does not exist; {nearest_hint(name, layout_names())}, or the path "
            "of a .yaml file"
        )
    return _read(FOLDER / f"{name}.yaml")


def _read(path: Path) -> Skeleton:
    return from_mapping(read_yaml_file(path), str(path))


def _show(value: Any) -> str:
    """The value in a message; a long or deep one is cut."""
    return reprlib.repr(value)


class _Joints:
    """The joints of a file that is being read: their names, checked, and their numbers."""

    def __init__(self, where: str, names: Any) -> None:
        self.where = where
        for place, name in enumerate(self.entries(names, "joints")):
            if not isinstance(name, str) or not name.strip():
                raise UserError(
                    f"{where}: joints[{place}] is {_show(name)}; allowed: a name (in quotes where "
                    "YAML takes it for something else)"
                )
            if names.index(name) != place:
                raise UserError(f"{where}: joints: {name!r} is there twice; each needs its own")
        if len(names) < 2:
            raise UserError(f"{where}: joints has {len(names)} names; allowed: 2 or more")
        self.names: tuple[str, ...] = tuple(names)
        self._number = {name: number for number, name in enumerate(names)}

    def entries(self, value: Any, key: str) -> list[Any]:
        """The value, if it is a list."""
        if not isinstance(value, list):
            raise UserError(f"{self.where}: {key} is {_show(value)}; allowed: a list")
        return value

    def number(self, value: Any, key: str) -> int:
        """The number of a joint that is given by name or by number."""
        if isinstance(value, str) and value in self._number:
            return self._number[value]
        if type(value) is int and 0 <= value < len(self.names):
            return value
        hint = f"a joint's name, or its number 0 to {len(self.names) - 1}"
        if isinstance(value, str):
            hint = nearest_hint(value, self.names)
        raise UserError(f"{self.where}: {key} is {_show(value)}, which is no joint; {hint}")

    def numbers(self, value: Any, key: str) -> tuple[int, ...]:
        """The numbers of a list of joints."""
        entries = self.entries(value, key)
        return tuple(self.number(joint, f"{key}[{place}]") for place, joint in enumerate(entries))


def _links(joints: _Joints, value: Any) -> Links:
    links: list[tuple[int, int]] = []
    for place, pair in enumerate(joints.entries(value, "edges")):
        where, link = f"{joints.where}: edges[{place}]", joints.numbers(pair, f"edges[{place}]")
        if len(link) != 2:
            raise UserError(f"{where} has {len(link)} joints; allowed: 2")
        if link[0] == link[1]:
            raise UserError(f"{where} links {joints.names[link[0]]} to itself; leave it out")
        if link in links or link[::-1] in links:
            raise UserError(f"{where} links {' and '.join(map(str, pair))} again; leave it out")
        links.append((link[0], link[1]))
    return tuple(links)


def _parents_towards(root: int, links: Links, num_joint: int) -> list[int | None]:
    """For every joint the next one on the shortest way to the root (of several the lowest
    number), for the root itself, for a joint without a way None."""
    parents: list[int | None] = [None] * num_joint
    parents[root] = root
    reached = [root]
    while reached:
        steps = sorted(
            (near, far)
            for near in reached
            for link in links
            for far in link
            if near in link and parents[far] is None
        )
        for near, far in steps:
            if parents[far] is None:
                parents[far] = near
        reached = sorted({far for _, far in steps})
    return parents


def _parents(joints: _Joints, value: Any) -> tuple[int, ...]:
    """Checked to be one tree, or empty."""
    where, names = f"{joints.where}: parents", joints.names
    if not isinstance(value, Mapping):
        raise UserError(
            f"{where} is {_show(value)}; allowed: 'child: parent' for every joint, {{}} where "
            "there are no bones, or leave it out"
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
    for child in parents:
        way = [child]
        while parents[way[-1]] not in way:
            way.append(parents[way[-1]])
        if parents[way[-1]] != way[-1]:
            raise UserError(
                f"{where} run in a circle: {', '.join(names[v] for v in way)}; allowed: every "
                "joint leads to one root, which is its own parent"
            )


def _parts(joints: _Joints, value: Any) -> tuple[tuple[int, ...], ...]:
    """Checked to hold every joint once, or empty."""
    parts = [
        joints.numbers(part, f"parts[{place}]")
        for place, part in enumerate(joints.entries(value, "parts"))
    ]
    flat = [number for part in parts for number in part]
    twice = sorted({joints.names[v] for v in flat if flat.count(v) > 1})
    if twice:
        raise UserError(f"{joints.where}: parts overlap: {', '.join(twice)}; allowed: one part")
    absent = [name for number, name in enumerate(joints.names) if number not in flat]
    if parts and (absent or not all(parts)):
        what = f"{', '.join(absent)} in no part" if absent else "an empty part"
        raise UserError(f"{joints.where}: parts: {what}; allowed: every joint in one part")
    return tuple(parts)
