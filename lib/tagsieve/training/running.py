"""A training on Ray Train: started, watched, and its outcome written as a model."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec

from tagsieve.console import Console
from tagsieve.engines.models import model_folder
from tagsieve.errors import RunError
from tagsieve.training.config import TrainConfig
from tagsieve.training.loop import Job, train_worker

POLL_SECONDS = 0.5

_BACKENDS = "cpu:gloo,cuda:nccl"
"""As accelerate has it for FSDP: what is offloaded to the CPU is sent from there."""


@dataclass(frozen=True)
class Trained:
    """How a training ended: its steps, the history of figures, the step of the checkpoint from
    which this run went on (0: from the base model), and the checkpoint that is the model."""

    steps: int
    history: list[dict[str, float]]
    began: int
    checkpoint: Any


@dataclass(frozen=True)
class Workers:
    """What each of the workers has: cores, and GPUs (0 or 1)."""

    count: int
    cpus: int
    gpus: int


def workers_of(config: TrainConfig, cores: int | None) -> Workers:
    """The workers of a training on the Ray that is started; `cores`: of an embedded one.

    Raises RunError where the cluster has not what they ask for.
    """
    import ray

    there = ray.cluster_resources()
    gpus: int = int(there.get("GPU", 0) >= config.workers)
    if config.gpus_per_worker is not None:
        gpus = config.gpus_per_worker
    shared = 1 if gpus or cores is None else max(1, cores // config.workers)
    workers = Workers(config.workers, config.cpus_per_worker or shared, gpus)
    for name, each in (("CPU", workers.cpus), ("GPU", workers.gpus)):
        if each * workers.count > there.get(name, 0):
            raise RunError(
                f"train.workers={workers.count} with {each} {name} each: the cluster has "
                f"{there.get(name, 0):g} {name}; lower train.workers or "
                f"train.{name.lower()}s_per_worker, or add machines"
            )
    if config.lora and config.lora.quantized and not gpus:
        raise RunError("train.lora.quantized needs GPUs, and the workers have none")
    return workers


def run_training(
    job: Job, workers: Workers, storage: str, name: str, embedded: bool, console: Console
) -> Trained:
    """Train on the workers, from the newest checkpoint that a run of this name has left in
    `storage`, and show how far it is.

    Lost workers are replaced and go on from the newest checkpoint. Raises RunError with the
    worker's own words when one cannot begin, or failed more often than `train.restarts`.
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    config = job.config
    best: dict[str, Any] = {}
    if job.held_out:
        best = {"checkpoint_score_attribute": "eval_loss", "checkpoint_score_order": "min"}
    resources = {"CPU": workers.cpus, "GPU": workers.gpus}
    trainer = _torch_trainer(embedded)(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend=_BACKENDS if job.parallel == "fsdp" else None),
        scaling_config=ScalingConfig(
            num_workers=workers.count, use_gpu=workers.gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=config.restarts),
            checkpoint_config=CheckpointConfig(num_to_keep=config.keep_checkpoints, **best),
        ),
    )
    # Not in the main thread: there Ray Train would take Ctrl-C for itself.
    thread = ThreadPoolExecutor(1, thread_name_prefix="train")
    try:
        future = thread.submit(trainer.fit)
        _watch(future, job.board, console)
        result = future.result()
    except TrainingFailedError as error:
        raise RunError(
            f"train: it failed more than train.restarts={config.restarts} times, last of: "
            f"{_own_words(error)}"
        ) from error
    finally:
        thread.shutdown(wait=False)
    outcome = result.return_value
    if "error" in outcome:
        raise RunError(f"train: a worker cannot begin: {outcome['error']}")
    checkpoint = result.checkpoint
    if job.held_out:
        checkpoint = result.get_best_checkpoint("eval_loss", "min")
    told = ray.get(job.board.told.remote())
    return Trained(outcome["steps"], outcome["history"], int(told.get("began", 0)), checkpoint)


def _torch_trainer(embedded: bool) -> Any:
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )

    if not embedded:
        return TorchTrainer

    class Embedded(TorchTrainer):  # type: ignore[misc, unused-ignore]
        """Without the actor that frees the workers' place when the controller dies: it asks the
        dashboard, which an embedded Ray has not, and each training would wait 12 s for its end.
        What it would free goes with the embedded Ray."""

        def _create_default_callbacks(self) -> list[Any]:
            every = super()._create_default_callbacks()
            return [each for each in every if not isinstance(each, PlacementGroupCleanerCallback)]

    return Embedded


def _watch(future: Future[Any], board: Any, console: Console) -> None:
    """Show how far a training is until it ends."""
    import ray

    began = time.monotonic()
    progress, done = None, 0
    waiting = console.progress("train", 1, "steps")
    while True:
        with suppress(NotYet):
            future.exception(timeout=POLL_SECONDS)
            return
        told = ray.get(board.told.remote())
        if "step" not in told:
            waiting.show(f"train: starting the workers, {time.monotonic() - began:.0f} s")
            continue
        if progress is None:
            progress, done = console.progress("train", int(told["steps"]), "steps"), 0
            done = int(told["began"])
            progress.advance(done)
        loss = f", loss {told['loss']:.3f}" if "loss" in told else ""
        # A worker that was lost repeats steps.
        progress.advance(max(int(told["step"]) - done, 0), loss)
        done = max(done, int(told["step"]))


def _own_words(error: Any) -> str:
    """What a worker died of, without the frames around it."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        cause = getattr(failure, "cause", None) or failure.__cause__ or failure
        return f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"
    return str(error).strip().splitlines()[-1]


def write_model(trained: Trained, job: Job, place: str) -> None:
    """Write a training's outcome to a folder or URI, as whole model files in the precision of the
    training; with `train.lora.merge` off, the adapter alone. In a task of Ray, which holds the
    model; what lay in the folder itself (not below) is replaced."""
    import ray

    ray.get(ray.remote(num_cpus=1)(_write).remote(trained.checkpoint, job, place))


def _write(checkpoint: Any, job: Job, place: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    lora = job.config.lora
    with checkpoint.as_directory() as folder, TemporaryDirectory() as made:
        if lora is not None and not lora.merge:
            for file in Path(folder).glob("adapter_*"):
                (Path(made) / file.name).write_bytes(file.read_bytes())
        else:
            dtype = getattr(torch, job.dtype)
            whole = folder if lora is None else model_folder(job.model, job.revision)
            model = AutoModelForCausalLM.from_pretrained(whole, dtype=dtype)
            if lora is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, folder).merge_and_unload()
            model.save_pretrained(made)
        job.tokenizer.save_pretrained(made)
        _replace(made, place)


def _replace(made: str, place: str) -> None:
    files, folder = fsspec.core.url_to_fs(place)
    files.makedirs(folder, exist_ok=True)
    for old in files.ls(folder, detail=True):
        if old["type"] == "file":
            files.rm(old["name"])
    for path in Path(made).iterdir():
        files.put_file(str(path), f"{folder}/{path.name}")
