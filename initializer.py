"""Config -> Session: builds every part that a mode needs, and nothing else."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from paddle import nn
from paddle.io import DataLoader
from paddle.optimizer import Adam, Momentum
from paddle.optimizer.lr import LambdaDecay

import utils
from configs.schema import Config
from dataset.feeder import ClipFeeder, eval_loader, train_loader
from dataset.pipeline import ClipPipeline
from dataset.protocols import data_spec
from dataset.storage import open_split
from errors import UserError
from model.build import build_network
from scheduler import schedules
from training import parallel
from training.checkpoint import load_pretrained
from training.session import Optimizer, Session

DEBUG_CLIPS = 300  # clips of each split that a debug run uses


class Initializer:
    """Builds sessions of one configuration. Sets device and seed, and meets the other processes
    where a launcher started several."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.args = config.data
        self.spec = data_spec(config.dataset, self.args.own_layout)
        self.world = parallel.join(config.gpus)
        utils.set_seed(config.seed)

    def for_training(self, *, load_weights: bool) -> Session:
        """Network, both loaders, rate and optimizer. load_weights: start from pretrained_path,
        where one is given; with `finetune` from as much of it as fits."""
        self._check_device()
        if load_weights and self.config.finetune and not self.config.pretrained_path:
            raise UserError("finetune needs weights to start from: -ft -pp FILE.pdparams")
        train, evaluate = self._train_loader(), self._eval_loader("eval")
        network = build_network(self.config, self.spec, self.spec.num_person)
        if load_weights and self.config.pretrained_path:
            load_pretrained(network, self.config.pretrained_path, fitting=self.config.finetune)
        _log_size(network, self.config.model_type)
        if self.config.sync_bn:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        scheduler = self._scheduler(train.batch_sampler.num_steps)
        optimizer = self._optimizer(scheduler, network)
        return Session(
            self.config,
            self.spec,
            network,
            train,
            evaluate,
            scheduler,
            optimizer,
            self._evaluation_policy(),
        )

    def for_evaluation(self, split: str) -> Session:
        """Network and a loader over every clip of `split` ('train' or 'eval'), in order."""
        loader = self._eval_loader(split)
        network = build_network(self.config, self.spec, self.spec.num_person)
        load_pretrained(network, self.config.pretrained_path)
        _log_size(network, self.config.model_type)
        return Session(self.config, self.spec, network, eval=loader)

    def _feeder(self, phase: str, pipeline: ClipPipeline) -> ClipFeeder:
        config, args = self.config, self.args
        folder = f"{args.data_folder}/{config.dataset}"
        command = (
            f"python main.py -c {config.name} -gd -d {config.dataset} --set "
            f"dataset_args.{args.group}.root_folder={args.root_folder}"
        )
        if args.group == "ntu":
            command += f" dataset_args.ntu.transform={str(args.transform).lower()}"
        clips = open_split(folder, phase, command)
        if clips.manifest is None:
            logging.warning("%s has no manifest.json: taken as %s data", folder, args.data_folder)
        elif clips.manifest["transform"] != args.transform:
            raise UserError(
                f"{folder}: its manifest says transform {clips.manifest['transform']}, the "
                f"configuration says {args.transform}; run: {command}"
            )
        feeder = ClipFeeder(
            clips,
            self.spec,
            pipeline,
            seed=config.seed,
            limit=DEBUG_CLIPS if config.debug else None,
        )
        logging.info("Data: %s, %d %s clips", folder, len(feeder), phase)
        return feeder

    def _train_loader(self) -> DataLoader:
        return train_loader(
            self._feeder("train", ClipPipeline.from_config(self.args, training=True)),
            self.args.train_batch_size,
            self.args.num_workers,
            rank=self.world.rank,
            world_size=self.world.size,
            accumulate=self.config.accumulate,
        )

    def _eval_loader(self, split: str) -> DataLoader:
        return eval_loader(
            self._feeder(split, ClipPipeline.from_config(self.args, training=False)),
            self.args.eval_batch_size,
            self.args.num_workers,
            rank=self.world.rank,
            world_size=self.world.size,
        )

    def _scheduler(self, steps_per_epoch: int) -> LambdaDecay:
        config = self.config
        args = getattr(config.scheduler_args, config.lr_scheduler)
        table = {"cosine": schedules.cosine, "step": schedules.stepped}
        settings = asdict(args)
        if config.lr_scheduler == "step":
            del settings["max_epoch"]
        factor = partial(table[config.lr_scheduler], steps_per_epoch=steps_per_epoch, **settings)
        logging.info("LR_Scheduler: %s %s", config.lr_scheduler, asdict(args))
        return LambdaDecay(self._base_rate(), factor)

    def _base_rate(self) -> float:
        """The configured rate, scaled to the clips of a step where base_batch_size says for how
        many it was written (Goyal et al., arXiv 1706.02677)."""
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
                f"amp is {self.config.amp!r}, but this run is on the CPU, where it changes "
                "nothing: Paddle computes in float32 there; leave it out, or choose a GPU with -g"
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


def _log_size(network: nn.Layer, model_type: str) -> None:
    size = sum(p.size for p in network.parameters() if not p.stop_gradient)
    logging.info("Model: %s, %s trainable parameters", model_type, f"{size:,}")
