"""Clips -> score maps: what each joint of each person speaks for, at each time, through a model of
the ailia contract (docs/export.md).

The public sample of ST-GCN: ailia-models, action_recognition/st_gcn.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.clip_input import check_range, fitting_input
from deploy.engines.engine import AUTO, Engine, open_engine
from deploy.meta import StaticMeta, read_meta
from errors import UserError
from safe_io import PathLike
from utils import num_cores

CONTRACT = "ailia"


@dataclass(frozen=True)
class ScoreMaps:
    """scores: (num_class, T', V, M) logits, whose mean is the clip's. intensity: (T', V, M), the
    length of the feature at each joint."""

    scores: np.ndarray
    intensity: np.ndarray


class ScoreMapPredictor:
    """An engine with a model of the ailia contract. Raises UserError for another one."""

    def __init__(self, engine: Engine, meta: StaticMeta) -> None:
        if meta.contract != CONTRACT:
            raise UserError(f"the model follows the {meta.contract} contract, not {CONTRACT}")
        self.engine, self.meta = engine, meta
        self.input = fitting_input(meta, list(engine.inputs.values()))
        self.class_names = meta.class_names

    @classmethod
    def load(
        cls,
        model_file: PathLike,
        *,
        params_file: PathLike | None = None,
        engine: str = AUTO,
        cpu_threads: int | None = None,
    ) -> ScoreMapPredictor:
        """As `Predictor.load`, of a model with metadata."""
        model_file = Path(model_file)
        params_file = Path(params_file or model_file.parent / f"{model_file.stem}.pdiparams")
        meta = read_meta(model_file)
        if meta is None:
            raise UserError(f"{model_file}: has no .meta.yaml; export again")
        meta.check_files(model_file, params_file)
        return cls(open_engine(model_file, params_file, engine, cpu_threads or num_cores()), meta)

    def run(self, clip: np.ndarray) -> ScoreMaps:
        """clip: (3, T, V, M), as the network was trained: in the image x and y in -0.5 to 0.5 and
        score; T and M any. Raises UserError for NaN, infinity and numbers without meaning."""
        check_range(clip[None])
        frames = clip.shape[1]
        pipeline = dataclasses.replace(self.input.pipeline, num_frame=frames)
        layout = self.input.skeleton
        rows = pipeline.features(pipeline.prepare(clip, layout), layout)  # (M*V, C, T)
        data = rows.reshape(-1, layout.num_joint, *rows.shape[1:]).transpose(2, 3, 1, 0)
        feeds = {next(iter(self.engine.inputs)): np.ascontiguousarray(data[None])}
        scores, feature = self.engine.run(feeds)
        if not np.isfinite(scores).all():
            raise UserError("the model answers with NaN or infinity: its files are damaged")
        return ScoreMaps(scores[0], np.sqrt((feature[0] ** 2).sum(axis=0)))
