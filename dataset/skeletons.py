"""Joint layouts as plain tables: names, links, centre, parents and body parts.

Joint numbers are 0-based throughout; sources that count from 1 are converted here. Links and
centres: ST-GCN (Yan et al., AAAI 2018; public code `net/utils/graph.py`). Parents and parts:
EfficientGCN (Song et al., TPAMI 2022, section 3; public code `dataset/graphs.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from safe_io import choose

Links = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Skeleton:
    """One joint layout.

    links: undirected bones, without self links. centre: the joint that the spatial partition
    measures distance to. parents[v]: the joint that bone v starts from (a root is its own
    parent). origin: the joint that relative coordinates are measured from. parts: groups of
    joints for part attention; empty where the layout has none.
    """

    name: str
    num_joint: int
    links: Links
    centre: int
    parents: tuple[int, ...] = ()
    origin: int = 1
    parts: tuple[tuple[int, ...], ...] = ()


def _from_one(pairs: str) -> Links:
    """'1-2 2-21' in 1-based numbers -> ((0, 1), (1, 20))."""
    return tuple(tuple(int(v) - 1 for v in pair.split("-")) for pair in pairs.split())


def _parts_from_one(*parts: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(v) - 1 for v in part.split()) for part in parts)


NTU_25 = Skeleton(
    name="ntu-25",
    num_joint=25,
    links=_from_one(
        "1-2 2-21 3-21 4-3 5-21 6-5 7-6 8-7 9-21 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 "
        "18-17 19-18 20-19 22-23 23-8 24-25 25-12"
    ),
    centre=20,
    parents=tuple(
        v - 1
        for v in (2, 2, 21, 3, 21, 5, 6, 7, 21, 9, 10, 11, 1)
        + (13, 14, 15, 1, 17, 18, 19, 2, 23, 8, 25, 12)
    ),
    parts=_parts_from_one(
        "5 6 7 8 22 23", "9 10 11 12 24 25", "13 14 15 16", "17 18 19 20", "1 2 3 4 21"
    ),
)

# Only a graph: joint 21 of NTU left out, for networks that were trained on 24 bones.
NTU_EDGE_24 = Skeleton(
    name="ntu_edge-24",
    num_joint=24,
    links=_from_one(
        "1-2 3-2 4-3 5-2 6-5 7-6 8-7 9-2 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 18-17 "
        "19-18 20-19 21-22 22-8 23-24 24-12"
    ),
    centre=2,  # already 0-based in the public code, which does not subtract 1 here
)

OPENPOSE_18 = Skeleton(
    name="openpose-18",
    num_joint=18,
    links=(
        *((4, 3), (3, 2), (7, 6), (6, 5), (13, 12), (12, 11), (10, 9), (9, 8), (11, 5)),
        *((8, 2), (5, 1), (2, 1), (0, 1), (15, 0), (14, 0), (17, 15), (16, 14)),
    ),
    centre=1,
    parents=(1, 1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15),
    parts=((5, 6, 7), (2, 3, 4), (11, 12, 13), (8, 9, 10), (0, 1, 14, 15, 16, 17)),
)

# The 19-link graph of mmskeleton and Realtime-ST-GCN. Parents follow pyskl's 16-bone tree, which
# is rooted at the nose; both conventions order joints alike.
COCO_17 = Skeleton(
    name="coco-17",
    num_joint=17,
    links=_from_one(
        "16-14 14-12 17-15 15-13 12-13 6-12 7-13 6-7 8-6 9-7 10-8 11-9 2-3 2-1 3-1 4-2 5-3 4-6 5-7"
    ),
    centre=0,
    parents=(0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
    origin=0,
    parts=((5, 7, 9), (6, 8, 10), (11, 13, 15), (12, 14, 16), (0, 1, 2, 3, 4)),
)

SKELETONS = {s.name: s for s in (NTU_25, NTU_EDGE_24, OPENPOSE_18, COCO_17)}


def skeleton(name: str) -> Skeleton:
    """The layout of that name, or a UserError that lists the names."""
    return choose(SKELETONS, name, where="skeleton")
