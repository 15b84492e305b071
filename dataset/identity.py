"""What data, weights and models say of themselves, compared wherever two of them meet.

An identity maps the names of settings to plain values. The generator writes the identity of data
into their manifest, a run writes that of its weights into its checkpoints, and the metadata of a
static model hold the same settings. A setting that one side does not state is not compared: files
of other projects say less.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from configs.data import DataArgs, KeypointArgs, KineticsArgs
from configs.schema import DIFFERENCES, Config
from dataset.pipeline import ClipPipeline
from dataset.protocols import DataSpec, protocol
from dataset.skeletons import Skeleton, layout_names, to_mapping
from errors import UserError, nearest_hint

Identity = Mapping[str, Any]

# What the clips on disk hold: metres, or shares of an image's sides and a score.
SPACE, IMAGE = "space", "image"

# Settings of a user's own data that decide what the generator writes.
_KEYPOINT = ("unit", "axes", "up", "image_size", "first_label")
_NOT_LEARNED = ("drop_prob",)  # model_args that do not change what trained weights compute
_LONGEST = 60  # characters of a value in a message


def of_data(args: DataArgs, spec: DataSpec) -> dict[str, Any]:
    """The identity of the data that a configuration generates, for their manifest."""
    return {
        "dataset": spec.name,
        **_origin(args, spec),
        "transform": args.transform,
        "repair_order": args.repair_order,
        "skeleton": layout_entry(spec.skeleton),
        "num_person": spec.num_person,
        "max_frame": spec.max_frame,
        "class_names": list(spec.class_names),
    }


def layout_entry(layout: Skeleton) -> str | dict[str, Any]:
    """A joint layout in an identity: the name of a built-in one, all of another one."""
    return layout.name if layout.name in layout_names() else to_mapping(layout)


def _origin(args: DataArgs, spec: DataSpec) -> dict[str, Any]:
    """Where the clips come from and how they are read."""
    if isinstance(args, KeypointArgs):
        values = {name: _plain(getattr(args, name)) for name in _KEYPOINT}
        splits = {"train": args.train_split, "eval": args.eval_split}
        return {"source": args.source_path, **values, "splits": splits}
    if isinstance(args, KineticsArgs):
        match = args.openpose_match
        return {"source": args.source_path, "unit": "normalised", "openpose_match": match}
    return {"source": args.source_path(protocol(spec.name).source)[1], "unit": "metre"}


def of_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The identity that a manifest states. One without `repair_order` is older than that option:
    its data are not repaired."""
    unit = manifest.get("unit")
    kind = {"coordinates": IMAGE if unit in ("pixel", "normalised") else SPACE} if unit else {}
    return {"repair_order": False, **kind, **manifest}


def of_weights(config: Config, spec: DataSpec) -> dict[str, Any]:
    """The identity of weights that a configuration trains, or wants to load."""
    args, model = config.data, dataclasses.asdict(config.model_args)
    about = of_data(args, spec)
    pipeline = ClipPipeline.from_config(args, training=False)
    names = ("dataset", "transform", "skeleton", "num_person", "class_names")
    own = {"train_split": args.train_split} if isinstance(args, KeypointArgs) else {}
    return {
        "model_type": config.model_type,
        "model_args": {k: _plain(v) for k, v in model.items() if k not in _NOT_LEARNED},
        **{name: getattr(pipeline, name) for name in ("inputs", "num_frame", "resample", "centre")},
        "coordinates": IMAGE if pipeline.num_axis == 2 else SPACE,
        **{name: about[name] for name in names},
        **own,
    }


def check_accepted(names: Sequence[str]) -> None:
    """Raises UserError for a name that is no setting of an identity."""
    for name in names:
        if name not in DIFFERENCES:
            raise UserError(f"--accept {name}: {nearest_hint(name, DIFFERENCES)}")


def compare(
    stored: Identity,
    wanted: Identity,
    *,
    source: str,
    other: str,
    fix: str,
    accept: Collection[str],
) -> None:
    """Raises UserError where two identities differ in a setting that both state, with both values.

    source: the file of the first, other: whose the second is, fix: what to do, for the message.
    accept: settings whose difference is deliberate. The source is compared by `other_source`.
    """
    different = [
        name
        for name in wanted
        if name in stored and name not in {*accept, "source"} and stored[name] != wanted[name]
    ]
    if different:
        found = "; ".join(_shown(name, stored[name], wanted[name], other) for name in different[:4])
        more = f"; and {len(different) - 4} more" if len(different) > 4 else ""
        raise UserError(
            f"{source}: {found}{more}. {fix}; if the difference is deliberate: "
            f"--accept {' '.join(different)}",
            command=fix,
        )


def other_source(stored: Identity, wanted: Identity) -> bool:
    """Whether data were made from other recordings than those of a configuration that names any."""
    paths = [identity.get("source") for identity in (stored, wanted)]
    named = all(isinstance(path, str) and path for path in paths)
    return named and os.path.realpath(str(paths[0])) != os.path.realpath(str(paths[1]))


def _plain(value: Any) -> Any:
    """Tuples as lists, as a file gives them back."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _shown(name: str, first: Any, second: Any, other: str) -> str:
    """'num_frame is 64, the configuration says 288'; of a collection its first difference."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = [key for key in second if key not in first or first[key] != second[key]]
        if name == "skeleton":
            same_name = keys and first.get("name") == second["name"]
            text = f"{name} is {_short(first)}, {other} says {_short(second)}"
            return text + (f" with other {keys[0]}" if same_name else "")
        key = keys[0] if keys else next(key for key in first if key not in second)
        return _shown(f"{name}.{key}", first.get(key), second.get(key), other)
    if isinstance(first, list) and isinstance(second, list):
        if name == "class_names" and len(first) != len(second):
            return f"{name} has {len(first)} classes, {other} has {len(second)}"
        for n, (a, b) in enumerate(zip(first, second)):
            if a != b and name == "class_names":
                return f"class {n} is {_short(a)}, {other} says {_short(b)}"
    return f"{name} is {_short(first)}, {other} says {_short(second)}"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("name")
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
