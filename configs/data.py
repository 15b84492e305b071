"""`dataset_args` as frozen dataclasses: the shared keys, and one group per kind of recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from configs.checks import ConfigError, check, check_range, one_of

BENCHMARK_FRAMES = 300  # frames kept of a clip of NTU RGB+D and Kinetics-skeleton, by convention
MOST_CLASSES = 100_000
MOST_FRAMES, MOST_PERSONS = 100_000, 100  # of a clip on disk of a user's own data
MOST_PIXELS, MOST_BATCH, MOST_WORKERS = 100_000, 65_536, 1024
KINETICS = "kinetics-skeleton"


@dataclass(frozen=True)
class AugmentArgs:
    """`augment`: random augmentation of training clips (dataset/augment.py). All off by default, as
    published. random_choose: frames, 0 for off. random_crop: smallest fraction of the valid frames
    to keep, 1 for off. random_rotate: degrees. random_scale: fraction. jitter: standard deviation,
    in the unit of the coordinates."""

    random_choose: int = 0
    random_shift: bool = False
    random_move: bool = False
    random_crop: float = 1.0
    random_rotate: float = 0.0
    random_scale: float = 0.0
    jitter: float = 0.0


@dataclass(frozen=True)
class ClipArgs:
    """Keys of every kind of data: length, preprocessing and batches of clips. group: the name of
    the group of keys in dataset_args."""

    group: ClassVar[str]
    train_batch_size: int = 16
    eval_batch_size: int = 16
    num_frame: int = 288
    inputs: str = "JVB"
    resample: bool = False
    centre: bool = False
    augment: AugmentArgs = field(default_factory=AugmentArgs)
    root_folder: str = "./data/npy_dataset"
    on_bad_file: str = "error"
    num_workers: int = 2

    def __post_init__(self) -> None:
        key = f"dataset_args.{self.group}."
        for name in ("train_batch_size", "eval_batch_size"):
            check_range(key + name, getattr(self, name), 1, MOST_BATCH)
        check_range(key + "num_frame", self.num_frame, 4, self.max_frame)
        check_range(key + "num_workers", self.num_workers, 0, MOST_WORKERS)
        check(bool(self.root_folder), key + "root_folder", "", "a folder; '.' for this one")
        one_of(key + "on_bad_file", self.on_bad_file, "error", "skip")
        self._check_inputs(key)
        self._check_augment(key + "augment.")

    def _check_inputs(self, key: str) -> None:
        letters = set(self.inputs)
        once = bool(letters) and len(letters) == len(self.inputs)
        one_modality = len(letters) == 1 and letters <= set("XYMN")
        allowed = (
            "any subset of J, V, B, or one raw modality: X joints, Y bones, M joint motion, "
            "N bone motion"
        )
        fits = once and (letters <= set("JVB") or one_modality)
        check(fits, key + "inputs", self.inputs, allowed)

    def _check_augment(self, key: str) -> None:
        augment = self.augment
        window = augment.random_choose
        fits = window == 0 or 4 <= window <= self.max_frame
        check(fits, key + "random_choose", window, f"0 (off), or 4 to {self.max_frame} frames")
        crop = augment.random_crop
        check(0 < crop <= 1, key + "random_crop", crop, "above 0 to 1")
        for name, top, unit in (
            ("random_rotate", 180, "degrees"),
            ("random_scale", 0.9, "a fraction"),
            ("jitter", 1, "metres"),
        ):
            value = getattr(augment, name)
            check(0 <= value <= top, key + name, value, f"0 (off) to {top}, {unit}")
        if augment.random_rotate and self.num_axis != 3:
            raise ConfigError(
                f"{key}random_rotate is {augment.random_rotate:g}, but these clips have "
                f"{self.num_axis} coordinates, not 3; set it to 0 and use random_move"
            )

    @property
    def transform(self) -> bool:
        """Whether clips on disk are pre-normalised; only those of NTU-style data can be."""
        return False

    @property
    def repair_order(self) -> bool:
        """Whether persons that change their place between frames are put in order on disk."""
        return False

    @property
    def max_frame(self) -> int:
        """Frames kept of a clip on disk."""
        return BENCHMARK_FRAMES

    @property
    def num_axis(self) -> int:
        """Coordinates among the three channels of a clip: 3 for x, y, z; 2 for x, y, score."""
        return 3

    @property
    def own_layout(self) -> Mapping[str, Any] | None:
        """Properties of a user's own data, which only the configuration states; None for
        benchmarks, whose protocols define them."""
        return None

    @property
    def data_folder(self) -> str:
        """Folder of generated data of this kind, which has a subfolder per data set."""
        return f"{self.root_folder}/{'transformed' if self.transform else 'original'}"


@dataclass(frozen=True)
class NTUArgs(ClipArgs):
    """`dataset_args.ntu`: NTU-style recordings."""

    group: ClassVar[str] = "ntu"
    transform: bool = False
    repair_order: bool = False
    ntu60_path: str = "./data/nturgbd_skeletons_s001_to_s017.zip"
    ntu120_path: str = "./data/nturgbd_skeletons"
    synthetic_path: str = "./data/synthetic_skeletons"

    def source_path(self, source: str) -> tuple[str, str]:
        """(full key, path) of the recordings for a protocol's source, e.g. 'ntu60'."""
        return f"dataset_args.ntu.{source}_path", getattr(self, f"{source}_path")


@dataclass(frozen=True)
class KineticsArgs(ClipArgs):
    """`dataset_args.kinetics`: Kinetics-skeleton, the OpenPose JSON files that the authors of
    ST-GCN released, or a user's own clips in their format.

    source_path: the folder with kinetics_{train,val}/ and kinetics_{train,val}_label.json.
    class_names: of a user's own classes, the folder with their label files, or a .txt file.
    """

    group: ClassVar[str] = "kinetics"
    source_path: str = "./data/kinetics-skeleton"
    class_names: str = ""
    openpose_match: bool = False

    @property
    def num_axis(self) -> int:
        return 2

    @property
    def own_layout(self) -> Mapping[str, Any] | None:
        return {"class_names": self.class_names} if self.class_names else None


@dataclass(frozen=True)
class KeypointArgs(ClipArgs):
    """`dataset_args.keypoint`: a user's own data. source_path: a pickle in the format of pyskl and
    mmaction2, or a folder with index.csv."""

    group: ClassVar[str] = "keypoint"
    source_path: str = ""
    skeleton: str = "coco-17"
    num_class: int = 0
    class_names: str = ""
    num_person: int = 1
    max_frame: int = BENCHMARK_FRAMES
    train_split: str = "train"
    eval_split: str = "test"
    first_label: int = 0
    unit: str = "metre"
    image_size: tuple[int, ...] = ()
    up: str = "y"
    axes: str = ""
    repair_order: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        key = "dataset_args.keypoint."
        check_range(key + "num_class", self.num_class, 0, MOST_CLASSES)
        check_range(key + "num_person", self.num_person, 1, MOST_PERSONS)
        check_range(key + "max_frame", self.max_frame, 4, MOST_FRAMES)
        check(self.first_label in (0, 1), key + "first_label", self.first_label, "0 or 1")
        one_of(key + "unit", self.unit, "metre", "millimetre", "pixel", "normalised")
        size = self.image_size
        sound = len(size) in (0, 2) and all(1 <= side <= MOST_PIXELS for side in size)
        allowed = f"[width, height] in pixels, up to {MOST_PIXELS}, or []"
        check(sound, key + "image_size", list(size), allowed)
        upright = self.up == "y" or (self.up == "z" and self.num_axis == 3)
        check(upright, key + "up", self.up, "y, or z for unit metre or millimetre")
        letters = "".join(sorted(self.axes))
        allowed = "a permutation of MTVC or TVC (persons, frames, joints, coordinates), or ''"
        check(letters in ("", "CMTV", "CTV"), key + "axes", self.axes, allowed)
        apart = self.train_split != self.eval_split
        check(apart, key + "eval_split", self.eval_split, "a split other than train_split")

    @property
    def num_axis(self) -> int:
        return 2 if self.unit in ("pixel", "normalised") else 3

    @property
    def own_layout(self) -> Mapping[str, Any]:
        names = ("skeleton", "num_class", "class_names", "num_person", "max_frame")
        return {name: value for name, value in asdict(self).items() if name in names}


DataArgs = NTUArgs | KineticsArgs | KeypointArgs


@dataclass(frozen=True)
class DatasetArgs:
    """`dataset_args`: one group per kind of recordings; `dataset` selects one."""

    ntu: NTUArgs = field(default_factory=NTUArgs)
    kinetics: KineticsArgs = field(default_factory=KineticsArgs)
    keypoint: KeypointArgs = field(default_factory=KeypointArgs)


def select_group(dataset: str, args: DatasetArgs) -> DataArgs:
    """The group of `dataset_args` for a data set. A name that is no benchmark's is a user's own, in
    the format of Kinetics-skeleton where `kinetics` names the classes."""
    if dataset.startswith(("ntu-", "synthetic-")):
        return args.ntu
    return args.kinetics if dataset == KINETICS or args.kinetics.class_names else args.keypoint
