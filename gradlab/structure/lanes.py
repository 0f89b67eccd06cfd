"""Seeds spread over the devices that JAX has: on this machine, and in the processes of one run.

Each device is a lane: all run one program (`jax.shard_map`), each on its own chunk of seeds. What a
chunk gives does not depend on how many others run beside it, so that several devices find the bits
that one finds, chunk after chunk. Processes that were joined by `jax.distributed.initialize` call
the same function with the same inputs; each gets the whole result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gradlab.common.arrays import Function
from gradlab.common.arrays import NumPyArray as Array
from gradlab.errors import InputError
from gradlab.tracing.settings import default_device

_EACH, _ALL = PartitionSpec("lane"), PartitionSpec()  # type: ignore[no-untyped-call]  # it has no types


@dataclass(frozen=True)
class Lanes:
    """Devices that work side by side.

    Args:
        devices: of all processes, in the order that all agree on.
    """

    devices: tuple[Any, ...]

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
            The compiled function. It raises `InputError` where processes have different values.
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
                try:
                    placed = jax.device_put(values, whole)
                except AssertionError as error:
                    me = f"process {jax.process_index()} of {jax.process_count()}"
                    raise InputError(
                        f"evaluate: {me} was given other inputs than the others; all must pass the "
                        "same arrays"
                    ) from error
                return np.asarray(compiled(placed, seeds, *rest))

        return run


def lanes_for(values: Sequence[Any]) -> Lanes | None:
    """Return the devices over which to spread seeds, or None where one device is meant.

    That is so where there is only one, where `jax.default_device` names one, and where the values
    lie on several devices already: then JAX spreads the program itself.
    """
    spread = any(isinstance(v, jax.Array) and len(v.sharding.device_set) > 1 for v in values)
    devices = tuple(jax.devices())
    named = default_device() is not None and jax.process_count() == 1
    if len(devices) == 1 or spread or named:
        return None
    return Lanes(devices)
