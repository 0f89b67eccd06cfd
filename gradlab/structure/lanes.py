"""Seeds spread over the devices that JAX has: on this machine, and in the processes of one run.

Each device is a lane: all run one program (`jax.shard_map`), each on its own chunk of seeds. What a
chunk gives does not depend on how many others run beside it, so that several devices find the bits
that one finds, chunk after chunk. Processes that were joined by `jax.distributed.initialize` call
the same function with the same inputs; each gets the whole result.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gradlab.common.arrays import Function
from gradlab.common.arrays import NumPyArray as Array
from gradlab.errors import InputError, ProcessLost
from gradlab.tracing.settings import default_device

T = TypeVar("T")

_EACH, _ALL = PartitionSpec("lane"), PartitionSpec()  # type: ignore[no-untyped-call]  # it has no types


@dataclass(frozen=True)
class Lanes:
    """Devices that work side by side.

    Args:
        devices: of all processes, in the order that all agree on.
        timeout: seconds to wait for other processes.
    """

    devices: tuple[Any, ...]
    timeout: float

    def __len__(self) -> int:
        return len(self.devices)

    @property
    def several_processes(self) -> bool:
        """Whether some lane belongs to another process."""
        return len({device.process_index for device in self.devices}) > 1

    def compile(
        self, function: Function, x64: bool, values: Any, seeds: Any, *rest: Any
    ) -> Callable[..., Array]:
        """Return `function(values, seeds, *rest)` with its seeds and results cut, a part per lane.

        Args:
            function: gives one row for each seed.
            x64: whether float64 is allowed in it.
            values: arrays; like all arguments these stand for those of later calls.
            seeds: as many rows as lanes, or a multiple.
            *rest: arrays that every lane sees whole.

        Returns:
            The compiled function. It raises `ProcessLost` where another process fails or does not
            come within the timeout, and `InputError` where processes have different values.
        """
        mesh = Mesh(np.array(self.devices), ("lane",))
        whole, cut = NamedSharding(mesh, _ALL), NamedSharding(mesh, _EACH)
        given = (_ALL, _EACH, *(_ALL for _ in rest))
        laid = jax.shard_map(function, mesh=mesh, in_specs=given, out_specs=_EACH, check_vma=False)
        together = self.several_processes
        compiled = (
            jax.jit(
                laid,
                in_shardings=whole,
                out_shardings=whole if together else cut,
            )
            .lower(values, seeds, *rest)
            .compile()
        )

        def run(values: Any, seeds: Any, *rest: Any) -> Array:
            with jax.enable_x64(x64):
                return np.asarray(compiled(jax.device_put(values, whole), seeds, *rest))

        if not together:
            return run
        return lambda *arguments: _within(self.timeout, lambda: run(*arguments))


def lanes_for(values: Sequence[Any], timeout: float) -> Lanes | None:
    """Return the devices over which to spread seeds, or None where one device is meant.

    That is so where there is only one, where `jax.default_device` names one, and where the values
    lie on several devices already: then JAX spreads the program itself.
    """
    spread = any(isinstance(v, jax.Array) and len(v.sharding.device_set) > 1 for v in values)
    devices = tuple(jax.devices())
    named = default_device() is not None and jax.process_count() == 1
    if len(devices) == 1 or spread or named:
        return None
    return Lanes(devices, timeout)


def _within(seconds: float, work: Callable[[], T]) -> T:
    """Do what all processes do together; one that is lost is an error, not a wait for ever.

    A collective blocks where it is called, and cannot be interrupted: so it is called in a thread
    that is left behind if it does not come back.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def attempt() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    me = f"process {jax.process_index()} of {jax.process_count()}"
    if done:
        return done[0]
    if not failed:
        raise ProcessLost(
            f"evaluate: {me} waited {seconds:g} s for the others (timeout={seconds:g}); one of "
            "them is lost, or has not called the same evaluate: restart them all together"
        )
    if isinstance(failed[0], AssertionError):
        raise InputError(
            f"evaluate: {me} was given other inputs than the others; all must pass the same arrays"
        ) from failed[0]
    raise ProcessLost(
        f"evaluate: {me} lost the others ({str(failed[0]).partition(chr(10))[0][:200]}); "
        "restart them all together"
    ) from failed[0]
