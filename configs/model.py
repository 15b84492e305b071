"""`model_args` as frozen dataclasses, one for each network family, with the allowed choices."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import ClassVar

from configs.checks import check, check_range, one_of

ACT_TYPES = ("relu", "relu6", "hswish", "swish")
CAUSAL = "-causal"
ATT_TYPES = (
    *("stja", "pa", "ca", "fa", "ja", "none"),
    *("stja-causal", "pa-causal", "ca-causal", "ja-causal"),
)
LAYER_TYPES = ("Basic", "Bottleneck", "Sep", "SG")
STRATEGIES = ("uniform", "distance", "spatial")
MOST_CHANNELS, MOST_BLOCKS, MOST_TAPS = 4096, 100, 999
Blocks = tuple[tuple[int, int, float], ...]  # channel, stride, depth of each


@dataclass(frozen=True)
class EfficientGCNArgs:
    """`model_args` of EfficientGCN, scaled by model_type (TPAMI 2022, section 3.5)."""

    model_types: ClassVar[tuple[str, ...]] = tuple(f"EfficientGCN-B{phi}" for phi in range(5))

    stem_channel: int = 64
    block_args: Blocks = ((48, 1, 0.5), (24, 1, 0.5), (64, 2, 1), (128, 2, 1))
    fusion_stage: int = 2
    act_type: str = "swish"
    att_type: str = "stja"
    layer_type: str = "SG"
    drop_prob: float = 0.25
    kernel_size: tuple[int, int] = (5, 2)
    scale_args: tuple[float, float] = (1.2, 1.35)
    expand_ratio: int = 0
    reduct_ratio: int = 2
    bias: bool = True
    edge: bool = True

    @property
    def causal(self) -> bool:
        """The attention gates each frame by means over the frames up to it."""
        return self.att_type.endswith(CAUSAL)

    def __post_init__(self) -> None:
        key = "model_args."
        for n, row in enumerate(self.block_args):
            ok = len(row) == 3 and 1 <= row[0] <= MOST_CHANNELS and row[1] in (1, 2)
            allowed = f"[channel 1 to {MOST_CHANNELS}, stride 1 or 2, depth 0 to {MOST_BLOCKS}]"
            check(ok and 0 <= row[2] <= MOST_BLOCKS, f"{key}block_args[{n}]", row, allowed)
        fusion, blocks = self.fusion_stage, len(self.block_args)
        check_range(key + "block_args: number of rows", blocks, 0, MOST_BLOCKS)
        allowed = f"0 to {blocks} (the number of block_args)"
        check(0 <= fusion <= blocks, key + "fusion_stage", fusion, allowed)
        one_of(key + "act_type", self.act_type, *ACT_TYPES)
        one_of(key + "att_type", self.att_type, *ATT_TYPES)
        one_of(key + "layer_type", self.layer_type, *LAYER_TYPES)
        check(0 <= self.drop_prob < 1, key + "drop_prob", self.drop_prob, "0 to below 1")
        kernel, hops = self.kernel_size
        ok = 1 <= kernel <= MOST_TAPS and kernel % 2 == 1 and 0 <= hops <= 10
        allowed = f"[odd number of frames up to {MOST_TAPS}, largest hop 0 to 10]"
        check(ok, key + "kernel_size", self.kernel_size, allowed)
        check_range(key + "reduct_ratio", self.reduct_ratio, 1, MOST_CHANNELS)
        check_range(key + "expand_ratio", self.expand_ratio, 0, 100)
        ok, allowed = all(0 < scale <= 4 for scale in self.scale_args), "two numbers above 0 to 4"
        check(ok, key + "scale_args", self.scale_args, allowed)
        check_range(key + "stem_channel", self.stem_channel, 1, MOST_CHANNELS)


@dataclass(frozen=True)
class STGCNArgs:
    """`model_args` of the 4-D ST-GCN."""

    model_types: ClassVar[tuple[str, ...]] = ("ST-GCN",)

    strategy: str = "spatial"
    max_hop: int = 1
    dilation: int = 1
    true_hops: bool = False
    edge_importance: bool = True
    drop_prob: float = 0.5
    kernel_size: int = 9
    block_args: tuple[tuple[int, int], ...] = (
        *((64, 1),) * 4,
        *((128, 2), (128, 1), (128, 1)),
        *((256, 2), (256, 1), (256, 1)),
    )

    def __post_init__(self) -> None:
        key = "model_args."
        blocks = len(self.block_args)
        check_range(key + "block_args: number of rows", blocks, 1, MOST_BLOCKS)
        for n, (channel, stride) in enumerate(self.block_args):
            ok = 1 <= channel <= MOST_CHANNELS and stride in (1, 2)
            allowed = f"[channel 1 to {MOST_CHANNELS}, stride 1 or 2]"
            check(ok, f"{key}block_args[{n}]", [channel, stride], allowed)
        one_of(key + "strategy", self.strategy, *STRATEGIES)
        check_range(key + "max_hop", self.max_hop, 1, 100)
        check_range(key + "dilation", self.dilation, 1, 100)
        check(0 <= self.drop_prob < 1, key + "drop_prob", self.drop_prob, "0 to below 1")
        odd = 1 <= self.kernel_size <= MOST_TAPS and self.kernel_size % 2 == 1
        allowed = f"an odd number of frames, up to {MOST_TAPS}"
        check(odd, key + "kernel_size", self.kernel_size, allowed)


@dataclass(frozen=True)
class RTSTGCNArgs:
    """`model_args` of RT-ST-GCN."""

    model_types: ClassVar[tuple[str, ...]] = ("RT-ST-GCN",)

    strategy: str = "spatial"
    edge_importance: bool = True
    residual: bool = True
    drop_prob: float = 0.0
    kernel_size: int = 9
    in_channel: int = 64
    block_args: tuple[tuple[int, int], ...] = (
        *((64, 1),) * 3,
        *((128, 2), (128, 1), (128, 1)),
        *((256, 2), (256, 1), (256, 1)),
    )

    def __post_init__(self) -> None:
        key = "model_args."
        blocks = len(self.block_args)
        check_range(key + "block_args: number of rows", blocks, 1, MOST_BLOCKS)
        for n, (channel, spacing) in enumerate(self.block_args):
            ok = 1 <= channel <= MOST_CHANNELS and 1 <= spacing <= MOST_TAPS
            allowed = f"[channel 1 to {MOST_CHANNELS}, tap spacing 1 to {MOST_TAPS}]"
            check(ok, f"{key}block_args[{n}]", [channel, spacing], allowed)
        one_of(key + "strategy", self.strategy, *STRATEGIES)
        check(0 <= self.drop_prob < 1, key + "drop_prob", self.drop_prob, "0 to below 1")
        check_range(key + "kernel_size", self.kernel_size, 1, MOST_TAPS)
        check_range(key + "in_channel", self.in_channel, 1, MOST_CHANNELS)


ModelArgs = EfficientGCNArgs | STGCNArgs | RTSTGCNArgs


def model_args_type(model_type: str) -> type[ModelArgs]:
    """'EfficientGCN-B0' -> EfficientGCNArgs. Raises ConfigError for an unknown model_type."""
    families = {name: kind for kind in typing.get_args(ModelArgs) for name in kind.model_types}
    one_of("model_type", model_type, *families)
    return families[model_type]
