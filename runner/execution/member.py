"""One process of a team, from inside: it meets the others, works, and leaves what became of it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from runner import ranks
from runner.context import Context
from runner.execution import capture, events, limits, team
from runner.execution.alarm import CANCEL
from runner.execution.attempt import ProgressEvents, teller
from runner.execution.events import Writer
from runner.execution.failures import Cancelled
from runner.execution.pool import SoloPool
from runner.execution.team import ADDRESS, Seat, SoloTeam

MEET_S = 300.0  # for all to find each other, once every one has begun
LOOK_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in the team a process is."""

    rank: int
    local_rank: int  # among those of its machine, and the number of its GPU
    local_size: int
    host: str  # address at which others reach this process


def sit(seat: Seat, place: Place) -> bool:
    """Do the work of one process; whether it went well. What became of it lies in the room of the seat."""
    capture.redirect_for_ever(seat.folder / capture.FILE)
    limits.apply(threads=seat.share.threads, gpus=seat.share.gpus)
    torch.set_num_threads(seat.share.threads)
    try:
        _join(seat, place)
        with _context(seat, place.rank) as context:
            made = seat.work(context)
        distributed.barrier()  # nobody leaves while another still needs it
        distributed.destroy_process_group()
        seat.leave(place.rank, made if place.rank == 0 else None)
    except Cancelled:
        return False
    except Exception as error:
        seat.leave(place.rank, team.failed(error))
        with contextlib.suppress(OSError):  # the log is on the same disk, which may be full
            traceback.print_exc()
        return False
    return True


def _join(seat: Seat, place: Place) -> None:
    """Meet the others in a group of torch.distributed, at an address of the first one's machine."""
    size = seat.share.workers
    numbers = {
        "RANK": place.rank,
        "WORLD_SIZE": size,
        "LOCAL_RANK": place.local_rank,
        "LOCAL_WORLD_SIZE": place.local_size,
    }
    os.environ.update({name: str(number) for name, number in numbers.items()})
    if ipaddress.ip_address(place.host).is_loopback:  # otherwise both listen on every interface
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
        os.environ.update(GLOO_SOCKET_IFNAME=loopback, NCCL_SOCKET_IFNAME=loopback)
    if seat.share.gpus:
        torch.cuda.set_device(place.local_rank)
    ranks.talk_in(seat.room)
    distributed.init_process_group(
        "nccl" if seat.share.gpus else "gloo",
        store=_opened(seat, place.host) if place.rank == 0 else _found(seat),
        rank=place.rank,
        world_size=size,
        timeout=timedelta(seconds=seat.timeout_s),  # one may work alone for hours while the others wait
    )


def _opened(seat: Seat, host: str) -> Any:
    """The store of the first process. Its socket is ours: torch's own would listen on every interface (2.13)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, 0), family=family)
    port = listening.getsockname()[1]
    seat.put(ADDRESS, f"{host} {port}".encode())
    return _store(host, port, is_master=True, master_listen_fd=listening.detach())


def _found(seat: Seat) -> Any:
    path, deadline = seat.room / ADDRESS, time.monotonic() + MEET_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the first process of the team did not open within {MEET_S:g} s")
        time.sleep(LOOK_S)
    host, port = path.read_text().split()
    return _store(host, int(port), is_master=False)


def _store(host: str, port: int, **more: object) -> Any:
    limit = timedelta(seconds=MEET_S)
    return distributed.TCPStore(host, port, timeout=limit, wait_for_workers=False, **more)  # type: ignore[attr-defined,arg-type]


@contextlib.contextmanager
def _context(seat: Seat, rank: int) -> Iterator[Context]:
    marker = seat.folder / CANCEL

    def check() -> None:
        if marker.exists():
            raise Cancelled("cancelled")

    with contextlib.ExitStack() as undo:
        heard = None
        if rank == 0:
            heard = undo.enter_context(contextlib.closing(Writer(seat.folder / events.FILE, seat.given["run"])))
        yield Context(
            **seat.given,
            pool=SoloPool(1, check),
            team=SoloTeam(),
            progress=_nothing if heard is None else ProgressEvents(heard),
            log=_nothing if heard is None else teller(heard, _say),
            metric=_nothing if heard is None else _metrics(heard),
            check=check,
        )


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def _metrics(writer: Writer) -> Callable[[str, float], None]:
    return lambda name, value: writer.write("metric", name=name, value=value)


def _nothing(*_: object) -> None:
    """What a process says that nobody hears."""
