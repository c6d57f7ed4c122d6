"""Ray, joined or started: on loopback only, with a token, without telemetry, and gone when the apply ends."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import runner
from runner.execution import failures
from runner.plan.capacity import GB, Capacity, Node, local_capacity
from runner.schema.errors import InfeasibleError

OBJECT_STORE_BYTES = (
    200 * 10**6
)  # artifacts travel through the store; ray's own memory only carries handles and batches
TEMP = "runner-ray-"  # short: a socket's path below it may have 107 characters at most
KNOCK_S = 10.0
# Where something listens that is no ray, ray.init tries 20 times for 40 s each (2.60); so it is 32 s in all. What is
# set already is left alone.
JOIN = {"RAY_NUM_REDIS_GET_RETRIES": "2", "RAY_py_gcs_connect_timeout_s": "5"}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where ray is: at an address to join, or here, started by us."""

    address: str | None
    token: Path | None  # in the folder of a ray of our own


def prepare(address: str | None) -> Place:
    """Set ray's environment, which it reads when it is imported; without an address for one of our own.

    Its token is made here: ray itself would write it readable for everybody.
    """
    assert "ray" not in sys.modules, "ray was imported before its environment was set"
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_USAGE_STATS_PROMPT_ENABLED="0",
        RAY_COLOR_PREFIX="0",  # what ray prints all the same is plain
        RAY_CHDIR_TO_TRIAL_DIR="0",  # Ray Train leaves its processes where they are
        RAY_TRAIN_METRICS_ENABLED="0",
        RAY_TRAIN_ENABLE_PRINT_PATCH="0",  # its processes print to the log of the run, once
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="1",  # num_gpus=0 hides the GPUs (ray#54868)
        PYTHONPATH=_with_checkout(os.environ.get("PYTHONPATH", "")),
    )
    if address is not None:
        _knock(address)
        os.environ.update(JOIN | {name: os.environ[name] for name in JOIN if name in os.environ})
        return Place(address=address, token=None)
    folder = Path(tempfile.mkdtemp(prefix=f"{TEMP}{os.getpid()}-", dir=_short_temp()))
    token = folder / "token"
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
        # the node's address becomes 127.0.0.1; otherwise ray listens on every interface (2.60, seen with `ss -ltn`)
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    )
    return Place(address=None, token=token)


def options(place: Place) -> dict[str, Any]:
    """Arguments of ``ray.init``."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if place.token is None:
        path = os.environ["PYTHONPATH"]
        return quiet | {"address": place.address, "runtime_env": {"env_vars": {"PYTHONPATH": path} if path else {}}}
    node = local_capacity().nodes[0]
    return quiet | {
        "address": "local",
        "include_dashboard": False,
        "num_cpus": node.cpus,
        "num_gpus": sum(node.gpus.values()),
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": str(place.token.parent / "r"),  # ray opens this one to everybody (0777, 2.60)
    }


def capacity_of(nodes: list[Mapping[str, Any]]) -> Capacity:
    """What the nodes of ``ray.nodes()`` have together."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return Capacity(nodes=tuple(_node(r) for r in alive), what="the cluster")


def _node(resources: Mapping[str, float]) -> Node:
    kinds = sorted((n.partition(":")[2] for n in resources if n.startswith("accelerator_type:")), key=len, reverse=True)
    gpus = int(resources.get("GPU", 0))
    return Node(
        cpus=int(resources.get("CPU", 0)),
        memory_gb=resources.get("memory", 0) / GB,
        gpus={kinds[0] if kinds else "GPU": gpus} if gpus else {},
    )


def _knock(address: str) -> None:
    """Raise InfeasibleError when nobody listens at ``address``: ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto": ray looks it up
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise InfeasibleError(
            f"no ray answers at {address!r} ({failures.describe(error)}); check --address, RAY_ADDRESS; or add --local"
        ) from None


def _with_checkout(path: str) -> str:
    """``PYTHONPATH`` with the folder that this package is imported from, when that is a checkout."""
    home = Path(runner.__file__).parents[1]
    if home.name == "site-packages" or str(home) in path.split(os.pathsep):
        return path
    return os.pathsep.join(filter(None, (str(home), path)))


def _short_temp() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) <= 20 else "/tmp"


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Keep our signal handlers: ``ray.init`` puts its own in their place."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError):  # not in the main thread: ray changed nothing either
                signal.signal(number, handler)
