"""Config -> Session: builds the parts that a mode needs."""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

from paddle import nn
from paddle.io import BatchSampler, DataLoader
from paddle.optimizer import Adam, Momentum, Optimizer
from paddle.optimizer.lr import LambdaDecay

import configs
import utils
from configs.data import ClipArgs
from configs.schema import Config
from dataset import identity
from dataset.feeder import ClipFeeder, StepSampler, data_loader, eval_sampler
from dataset.pipeline import ClipPipeline
from dataset.protocols import data_spec
from dataset.storage import content_hash, open_split, read_manifest
from errors import UserError
from safe_io import file_hash
from scheduler import schedules
from training import parallel
from training.checkpoint import load_network
from training.session import Data, Session, TrainingSession
from training.tasks import ClipClassification


class Initializer:
    """Builds sessions of one configuration. Sets device and seed, and joins other processes."""

    def __init__(self, config: Config) -> None:
        self.config, self.args = config, config.data
        self.spec = data_spec(config.dataset, self.args.own_layout)
        self.world = parallel.join(config.gpus)
        weights, names = config.pretrained_path, self.spec.class_names
        about = {"dataset": config.dataset, "class_names": list(names)}
        if weights and os.path.isfile(weights):
            about["weights_sha256"] = file_hash(weights)
        self.task = ClipClassification(names, config.label_smoothing, about)
        utils.set_seed(config.seed)

    def for_training(self, *, load_weights: bool) -> TrainingSession:
        """Network, task, both splits, learning rate and optimizer. load_weights: start from
        pretrained_path, where it is set; with `finetune` from the weights that fit."""
        self._check_device()
        if load_weights and self.config.finetune and not self.config.pretrained_path:
            raise UserError("finetune needs weights to start from: -ft -pp FILE.pdparams")
        train = self._train_data()
        evaluation = None if self._lacks_clips("eval") else self._eval_data("eval")
        if evaluation is None:
            logging.info("No evaluation clips: training without evaluation, no best.pdparams")
        config = self.config if load_weights else replace(self.config, pretrained_path="")
        network = load_network(config, self.spec)
        if config.sync_bn:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # in place
        scheduler = self._scheduler(train.sampler.num_steps)
        optimizer, policy = self._optimizer(scheduler, network), self._evaluation_policy()
        clips = train.feeder.clips
        sha256 = content_hash(clips.names, clips.required_labels().tolist())
        about = {**identity.of_weights(config, self.spec), "train_clips": sha256}
        parts = self.task, network, evaluation, about, train, scheduler, optimizer, policy
        return TrainingSession(self.config, *parts)

    def for_evaluation(self, split: str) -> Session:
        """Network, task and every clip of `split` ('train' or 'eval'), in order."""
        if self._lacks_clips(split):
            raise UserError(
                f"{self.config.dataset} has no {split} clips; evaluate those of the other split "
                "(--split), or choose the splits of your data and generate them again: -gd"
            )
        data = self._eval_data(split)
        network = load_network(self.config, self.spec)
        about = identity.of_weights(self.config, self.spec)
        return Session(self.config, self.task, network, data, about)

    def _lacks_clips(self, phase: str) -> bool:
        """Whether the data on disk state that a split is empty."""
        folder = Path(self.args.data_folder) / self.config.dataset
        clips = (read_manifest(folder) or {}).get("clips")
        return isinstance(clips, dict) and clips.get(phase) == 0

    def _feeder(self, phase: str, *, training: bool) -> ClipFeeder:
        config, args = self.config, self.args
        folder = f"{args.data_folder}/{config.dataset}"
        command = f"python main.py -c {config.name} -gd -d {config.dataset}{_data_settings(config)}"
        clips = open_split(folder, phase, command)
        if clips.manifest is None:
            logging.warning("%s has no manifest.json: taken as %s data", folder, args.data_folder)
        else:
            stored, wanted = identity.of_manifest(clips.manifest), identity.of_data(args, self.spec)
            if self.world.main and identity.other_source(stored, wanted):
                # No error: where recordings lie differs between machines, and -gd may name them.
                text = "%s was made from %s; the configuration says %s"
                logging.warning(text, folder, stored["source"], wanted["source"])
            identity.compare(
                stored,
                wanted,
                source=f"{folder}: its manifest",
                other="the configuration",
                fix=f"Generate these data again: {command}",
                accept=config.accept,
            )
        pipeline = ClipPipeline.from_config(args, training=training)
        limit = 300 if config.debug else None  # clips
        feeder = ClipFeeder(clips, self.spec, pipeline, seed=config.seed, limit=limit)
        logging.info("Data: %s, %d %s clips", folder, len(feeder), phase)
        return feeder

    def _train_data(self) -> Data[StepSampler]:
        feeder, (rank, size, _) = self._feeder("train", training=True), self.world
        batch, accumulate = self.args.train_batch_size, self.config.accumulate
        sampler = StepSampler(len(feeder), batch, rank=rank, world_size=size, accumulate=accumulate)
        return Data(feeder, sampler, self._loader(feeder, sampler))

    def _eval_data(self, split: str) -> Data[BatchSampler]:
        feeder, (rank, size, _) = self._feeder(split, training=False), self.world
        batch = self.args.eval_batch_size
        sampler = eval_sampler(len(feeder), batch, rank=rank, world_size=size)
        return Data(feeder, sampler, self._loader(feeder, sampler))

    def _loader(self, feeder: ClipFeeder, sampler: BatchSampler) -> DataLoader:
        item_bytes = feeder.item_bytes * self.world.size  # ranks share a machine's memory
        return data_loader(feeder, sampler, self.args.num_workers, item_bytes)

    def _scheduler(self, steps_per_epoch: int) -> LambdaDecay:
        name = self.config.lr_scheduler
        settings = asdict(getattr(self.config.scheduler_args, name))
        logging.info("LR_Scheduler: %s %s", name, settings)
        factor = partial(schedules.cosine, steps_per_epoch=steps_per_epoch, **settings)
        if name == "step":
            del settings["max_epoch"]
            factor = partial(schedules.stepped, steps_per_epoch=steps_per_epoch, **settings)
        return LambdaDecay(self._base_rate(), factor)

    def _base_rate(self) -> float:
        """The configured rate, scaled in proportion to the clips of a step where base_batch_size
        is set (Goyal et al., arXiv 1706.02677)."""
        config = self.config
        written = getattr(config.optimizer_args, config.optimizer).learning_rate
        parts = (self.args.train_batch_size, self.world.size, config.accumulate)
        clips, base = math.prod(parts), config.base_batch_size
        rate = written * clips / base if base else written
        logging.info("Step: %d clips = batch %d x processes %d x accumulate %d", clips, *parts)
        how = f"{written:g} x {clips} / {base}" if base else "as written"
        logging.info("Learning rate: %g (%s)", rate, how)
        return rate

    def _check_device(self) -> None:
        if parallel.on_gpu():
            return
        if self.config.amp:
            raise UserError(
                f"amp is {self.config.amp!r}, but this run is on the CPU, where it has no effect: "
                "Paddle computes in float32 there; leave it out, or choose a GPU with -g"
            )
        if self.config.sync_bn:
            raise UserError(
                "sync_bn is true, but this run is on the CPU, for which Paddle has no "
                "synchronised BatchNorm; set sync_bn=false: each process normalises its own clips"
            )

    def _evaluation_policy(self) -> Callable[[int], bool]:
        config, last = self.config, self.config.max_epoch
        low_rate_from = last - schedules.COSINE_TAIL
        if config.lr_scheduler == "step":
            low_rate_from = max(config.scheduler_args.step.step_lr, default=0)
        return partial(schedules.evaluates_after, max_epoch=last, low_rate_from=low_rate_from)

    def _optimizer(self, scheduler: LambdaDecay, network: nn.Layer) -> Optimizer:
        config = self.config
        settings = asdict(getattr(config.optimizer_args, config.optimizer))
        logging.info("Optimizer: %s %s", config.optimizer, settings)
        settings["learning_rate"] = scheduler
        if config.clip_norm:
            settings["grad_clip"] = nn.ClipGradByGlobalNorm(config.clip_norm)
        table = {"Momentum": Momentum, "Adam": Adam}
        trainable = [p for p in network.parameters() if not p.stop_gradient]
        return table[config.optimizer](parameters=trainable, **settings)


def _data_settings(config: Config) -> str:
    """' --set KEY=VALUE ...': what decides the data on disk and differs from the file of the
    configuration; '' for nothing."""
    args = config.data
    try:
        written = configs.load(config.name, {"dataset": config.dataset}).data
    except UserError:  # of a run whose configuration file is gone
        written = type(args)()
    own = {field.name for field in fields(args)} - {field.name for field in fields(ClipArgs)}
    own |= {"root_folder", "on_bad_file", "num_frame"}  # the last must fit max_frame
    pairs = []
    for name in sorted(own):
        value = getattr(args, name)
        if value != getattr(written, name):
            is_plain = isinstance(value, str) and configs.parse_set([f"k={value}"])["k"] == value
            text = value if is_plain else json.dumps(value)
            pairs.append(shlex.quote(f"dataset_args.{args.group}.{name}={text}"))
    return f" --set {' '.join(pairs)}" if pairs else ""
