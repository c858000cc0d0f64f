"""One Ray for a whole run: embedded, or a cluster by its address."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from tagsieve.engines.config import RayConfig
from tagsieve.errors import RunError


def cores(config: RayConfig) -> int:
    """Cores of the embedded Ray."""
    return config.cpus or os.cpu_count() or 1


def share_of_cores(config: RayConfig, replicas: int) -> int:
    """Cores of each of `replicas` actors that share the embedded Ray."""
    return max(1, cores(config) // replicas)


def is_embedded(config: RayConfig) -> bool:
    """Whether Ray is started here, and is no cluster that runs already."""
    return not (config.address or os.environ.get("RAY_ADDRESS"))


def count_gpus() -> int:
    """GPUs that an embedded Ray would find on this machine."""
    from ray._private.accelerators import NvidiaGPUAcceleratorManager

    return int(NvidiaGPUAcceleratorManager.get_current_node_num_accelerators())


def gpus_of_each(actors: int, setting: float | None = None) -> float:
    """GPUs of each of so many actors: the setting, else one where Ray has one for each.

    Ray must have been started.
    """
    import ray

    if setting is not None:
        return setting
    return float(ray.cluster_resources().get("GPU", 0) >= actors)


def check_precision(setting: str, given: str, dtype: str, gpus: float) -> None:
    """Refuse actors on GPUs in float32 that nobody has asked for: `auto` (`given`) is what the
    machine that submits has, since it is part of what names the results. Raises RunError."""
    if given == "auto" and dtype == "float32" and gpus:
        raise RunError(
            f"{setting}=auto is float32 by this machine, which has no GPU, and its actors have "
            "some; set it to bfloat16, or to float32 if you mean that"
        )


def start_ray(config: RayConfig, verbose: bool = False) -> None:
    """Connect this process to Ray, starting an embedded one where no address is set.

    Raises RunError when the cluster cannot be reached.
    """
    # An actor would otherwise hide the GPUs from children that ask for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # An embedded Ray would run its workers at the lowest priority, below Spark's idle JVM.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if not verbose:
        # Ray's C++ side writes to this process's stderr past Python's logging.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with nullcontext() if verbose else _silenced():
        _init(config, verbose)
    if not verbose:
        logging.getLogger("ray").setLevel(logging.ERROR)


def _init(config: RayConfig, verbose: bool) -> None:
    import ray

    if ray.is_initialized():
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    level = logging.INFO if verbose else logging.ERROR
    try:
        if address:
            ray.init(address=address, logging_level=level, log_to_driver=verbose)
        else:
            ray.init(
                "local",  # not a cluster that happens to run on this machine
                # One more than there are: a model's actor takes all cores, and the tasks that
                # read and slice its input, which are idle most of the time, need a place too.
                num_cpus=cores(config) + 1,
                object_store_memory=int(config.object_store_gb * 2**30),
                include_dashboard=False,
                logging_level=level,
                log_to_driver=verbose,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"at {address}" if address else "on this machine"
        raise RunError(f"Ray {where} did not start or answer (ray.address): {error}") from error


@contextmanager
def _silenced() -> Iterator[None]:
    """Nothing on this process's stderr, not even from below Python: Ray greets its log level."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def stop_ray() -> None:
    """Leave Ray; an embedded one ends."""
    import ray

    ray.shutdown()
