"""The processes of a team, started and watched by Ray Train."""

from __future__ import annotations

import ray
from ray import train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer

from runner.execution import cluster, failures, member
from runner.execution.share import Share
from runner.execution.team import Seat


def fit(seat: Seat) -> str:
    """Carry out the work of ``seat`` until every process has ended; what is known when one ended badly."""
    trainer = TorchTrainer(
        lambda: _sit(seat),
        torch_config=_Config(),
        scaling_config=_scaling(seat.share),
        # the next attempt is ours to make: it goes on from the job's own checkpoints
        run_config=RunConfig(name="train", storage_path=str(seat.room), failure_config=FailureConfig(max_failures=0)),
    )
    try:
        with cluster.own_signals():  # Ray Train takes SIGINT for itself
            trainer.fit()
    except train.WorkerGroupError as error:
        died = {rank: one for rank, one in error.worker_failures.items() if hasattr(one, "health_check_failure")}
        return "; ".join(f"process {rank} died{_why(one)}" for rank, one in died.items())
    except train.TrainingFailedError as error:
        return failures.describe(error)[:300]
    return ""


def _why(error: Exception) -> str:
    """What ray's own watch over the memory says; its other texts are a page of guesses."""
    return ", as the machine ran low on memory" if "low on memory" in str(error) else ""


class _Room(Backend):  # type: ignore[misc]  # ray is not typed
    """Joins nobody: ``member.sit`` does it, on loopback where the cluster is this machine alone."""

    share_cuda_visible_devices = True  # as torch wants it: LOCAL_RANK is the number of the GPU


class _Config(TorchConfig):  # type: ignore[misc]  # ray is not typed
    backend_cls = _Room


def _sit(seat: Seat) -> None:
    """The main function of a process."""
    context = train.get_context()
    place = member.Place(
        rank=context.get_world_rank(),
        local_rank=context.get_local_rank(),
        local_size=context.get_local_world_size(),
        host=ray.util.get_node_ip_address(),
    )
    if not member.sit(seat, place):
        raise RuntimeError("the work of this process failed")


def _scaling(share: Share) -> ScalingConfig:
    resources: dict[str, float] = {"CPU": share.cpus}
    if share.gpus:
        resources["GPU"] = share.gpus
    if share.memory_gb:
        resources["memory"] = int(share.memory_gb * 1e9)
    return ScalingConfig(
        num_workers=share.workers,
        use_gpu=bool(share.gpus),
        resources_per_worker=resources,
        accelerator_type=share.accelerator if share.gpus else None,
    )
