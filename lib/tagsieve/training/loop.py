"""What each worker of a training does: TRL's trainers over rows that are token ids already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from tagsieve.engines.models import model_folder
from tagsieve.errors import UsageError
from tagsieve.training.config import EFFICIENT, DpoConfig, Parallel, SftConfig, TrainConfig

if TYPE_CHECKING:
    from datasets import Dataset

TRAIN, HELD_OUT = "train", "held_out"
"""Folders of the rows."""

DEEPSPEED: dict[str, Any] = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    "bf16": {"enabled": "auto"},
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}
"""ZeRO-3, with whole weights in its checkpoints."""


@dataclass(frozen=True)
class Job:
    """What the workers of a training share.

    `model`, `revision`: the base model, as any machine finds it. `rows`: folder or URI with `TRAIN`
    and, if some rows are held out, `HELD_OUT`. `board`: the actor that is told how far it is.
    `events`: folder of TensorBoard files, None for none. `dtype`: "bfloat16" or "float32". `gpu`:
    whether each worker has one.
    `threads`: of a worker without.
    """

    config: TrainConfig
    model: str
    revision: str | None
    tokenizer: Any
    rows: str
    held_out: bool
    board: Any
    events: str | None
    dtype: str
    gpu: bool
    threads: int

    @property
    def parallel(self) -> Parallel:
        """How the workers share the model; on CPUs each has the whole."""
        return self.config.parallel if self.gpu else "ddp"


class Board:
    """An actor that keeps what the first worker has told last."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def tell(self, told: dict[str, float]) -> None:
        """Note figures by name."""
        self._told |= told

    def told(self) -> dict[str, float]:
        """All figures."""
        return self._told


class _Report(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Hands checkpoints to Ray Train, and tells the board.

    Ray's own callback for transformers copies a checkpoint twice on its way.
    """

    def __init__(self, board: Any) -> None:
        self._board = board

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._tell(state, {"steps": state.max_steps, "began": state.global_step})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._tell(state, {})

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        last = state.log_history[-1]
        self._tell(state, {name: last[name] for name in ("loss", "eval_loss") if name in last})

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        import ray.train

        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        metrics = {"step": state.global_step}
        for logged in state.log_history:
            metrics |= {name: logged[name] for name in ("loss", "eval_loss") if name in logged}
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
            delete_local_checkpoint_after_upload=True,
        )

    def _tell(self, state: Any, told: dict[str, float]) -> None:
        if state.is_world_process_zero:
            self._board.tell.remote({"step": state.global_step, **told})


def train_worker(given: dict[str, Job]) -> dict[str, Any]:
    """Do the `job`, from the newest checkpoint if there is one; gives `steps` and the `history` of
    figures, or the `error` of some worker that could not begin."""
    import datasets
    import ray.train
    import torch
    from transformers import set_seed
    from transformers.utils import logging

    job = given["job"]
    set_seed(job.config.seed)  # the trainer does it after an adapter was drawn
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    if not job.gpu:
        torch.set_num_threads(job.threads)
    with TemporaryDirectory() as folder:
        if job.events is not None:
            os.environ["TENSORBOARD_LOGGING_DIR"] = job.events
        trainer, error = None, None
        try:
            trainer = _trainer(job, folder)
        except (ImportError, OSError, RuntimeError, TypeError, UsageError, ValueError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        # Raised, it would be tried again and again, as a worker that was lost.
        error = _first_error(error)
        if error is not None or trainer is None:
            return {"error": error}
        with _newest_checkpoint(ray.train.get_checkpoint()) as checkpoint:
            state = _ended(checkpoint)
            if state is None:
                trainer.train(resume_from_checkpoint=checkpoint)
                state = trainer.state
    return {"steps": state.global_step, "history": state.log_history}


def _ended(checkpoint: str | None) -> Any:
    """The state in a checkpoint of the last step, None for any other; from there the trainer would
    do one step more."""
    from transformers.trainer_callback import TrainerState

    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(f"{checkpoint}/trainer_state.json")
    return state if state.global_step >= state.max_steps else None


def _first_error(error: str | None) -> str | None:
    """The first error of any worker, None where all can begin."""
    from torch import distributed

    every = [error]
    if distributed.is_initialized():
        every = [None] * distributed.get_world_size()
        distributed.all_gather_object(every, error)
    return next((each for each in every if each is not None), None)


@contextmanager
def _newest_checkpoint(checkpoint: Any) -> Iterator[str | None]:
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield folder


def _trainer(job: Job, folder: str) -> Any:
    """The trainer of a worker; what it writes meanwhile lies in `folder`."""
    config = job.config
    _before_loading(job)
    train = open_rows(f"{job.rows}/{TRAIN}", f"{folder}/rows")
    held_out = open_rows(f"{job.rows}/{HELD_OUT}", f"{folder}/rows") if job.held_out else None
    cls, arguments = _preference_trainer() if isinstance(config, DpoConfig) else _sft_trainer()
    given = {**_arguments(job, folder), **_of_task(config)}
    return cls(
        model=model_folder(job.model, job.revision),
        args=arguments(**given),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=job.tokenizer,
        callbacks=[_Report(job.board)],
        **_adapter(job),
    )


def _sft_trainer() -> tuple[Any, Any]:
    from trl.trainer.sft_config import SFTConfig as Arguments
    from trl.trainer.sft_trainer import SFTTrainer

    return SFTTrainer, Arguments


def _preference_trainer() -> tuple[Any, Any]:
    from trl.trainer.dpo_config import DPOConfig as Arguments
    from trl.trainer.dpo_trainer import DPOTrainer

    class Trainer(DPOTrainer):  # type: ignore[misc, unused-ignore]
        """Takes token ids as they are; DPOTrainer takes texts alone."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
            return dataset

    return Trainer, Arguments


def _of_task(config: TrainConfig) -> dict[str, Any]:
    """Arguments that one task alone has."""
    if isinstance(config, DpoConfig):
        return {"beta": config.beta, "max_length": None}
    packing = isinstance(config, SftConfig) and config.packing
    return {
        "packing": packing,
        "eval_packing": False,
        "max_length": config.max_tokens,
        # Rows are token ids with labels, and cut; packing is what is left to prepare.
        "dataset_kwargs": {"skip_prepare_dataset": not packing},
        "neftune_noise_alpha": config.neftune if isinstance(config, SftConfig) else None,
    }


def _arguments(job: Job, folder: str) -> dict[str, Any]:
    config = job.config
    share = config.workers * config.micro_batch_size
    adapter_alone = config.lora is not None
    return {
        "output_dir": f"{folder}/checkpoints",
        "model_init_kwargs": {
            "dtype": job.dtype if adapter_alone else "float32",
            "attn_implementation": config.attention,
            # TRL would have each worker spread a preference training's second model over all GPUs.
            "device_map": None,
        },
        "per_device_train_batch_size": config.micro_batch_size,
        "per_device_eval_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": config.batch_size // share,
        "num_train_epochs": config.epochs,
        "max_steps": config.steps or -1,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup,  # below 1 it is a share
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "bf16": job.dtype == "bfloat16",
        "use_cpu": not job.gpu,
        "gradient_checkpointing": config.gradient_checkpointing,
        "train_sampling_strategy": "random" if config.shuffle else "sequential",
        "seed": config.seed,
        "save_strategy": "steps",
        "save_steps": config.checkpoint_steps,
        "eval_strategy": "steps" if job.held_out else "no",
        "eval_steps": config.checkpoint_steps,
        "logging_steps": config.log_steps,
        "logging_first_step": True,
        "report_to": [] if job.events is None else ["tensorboard"],
        "disable_tqdm": True,
        "log_level": "error",
        **_sharded(job),
    }


def _sharded(job: Job) -> dict[str, Any]:
    match job.parallel:
        case "fsdp":
            return {"fsdp": True, "fsdp_config": _fsdp_config(job)}
        case "deepspeed":
            return {"deepspeed": _merged(DEEPSPEED, job.config.parallel_args)}
    return {"ddp_find_unused_parameters": False}


def _merged(ours: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Both, section by section; what is given wins."""
    sections = {
        name: {**ours.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in given.items()
    }
    return ours | sections


def _before_loading(job: Job) -> None:
    """Tell transformers how weights are loaded: the trainer would, but after it has loaded them."""
    if job.parallel == "fsdp":
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        efficient = _fsdp_config(job)[EFFICIENT]
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = str(efficient).lower()


def _fsdp_config(job: Job) -> dict[str, Any]:
    """What is given, and that the first worker alone loads the weights and hands the others their
    parts. TRL does not hand on those of a preference training's second model."""
    config = job.config
    once = not isinstance(config, DpoConfig) or config.lora is not None
    return {EFFICIENT: once, **config.parallel_args}


def _adapter(job: Job) -> dict[str, Any]:
    lora = job.config.lora
    if lora is None:
        return {}
    from peft import LoraConfig

    given: dict[str, Any] = {
        "peft_config": LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.modules) or "all-linear",
            task_type="CAUSAL_LM",
        )
    }
    if lora.quantized:
        import torch
        from transformers import BitsAndBytesConfig

        given["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, job.dtype),
        )
    return given


def open_rows(place: str, cache: str) -> Dataset:
    """The rows of a folder of Parquet files, in the order of the files: written to an Arrow file
    below `cache`, on the worker's disk, and mapped into memory from there; nothing is held."""
    import datasets
    import fsspec

    files, folder = fsspec.core.url_to_fs(place)
    names = sorted(files.glob(f"{folder}/*.parquet"))
    if "file" not in files.protocol:
        local = Path(cache) / Path(folder).name
        local.mkdir(parents=True, exist_ok=True)
        for name in names:
            files.get_file(name, str(local / Path(name).name))
        names = sorted(str(path) for path in local.glob("*.parquet"))
    return datasets.Dataset.from_parquet(names, cache_dir=cache)
