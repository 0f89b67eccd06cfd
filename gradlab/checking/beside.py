"""Independent checks side by side: one thread for each device, with that as JAX's default device.

A check is the same whatever runs beside it, so that several devices find the bits that one finds.
Only what JAX has traced is spread: a rule that is run as it was written may keep state.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from gradlab.checking.evidence import Evidence, programs_of
from gradlab.references import Evaluation
from gradlab.tracing.settings import default_device, settings, undisturbed

__all__ = ["devices_for", "idle_devices", "side_by_side"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_SMALL = 1 << 17  # input entries up to which compiling for one more device costs more than it saves


def idle_devices() -> tuple[Any, ...]:
    """Return this process's devices; only the default one where `jax.default_device` names it."""
    chosen = default_device()
    return tuple(jax.local_devices()) if chosen is None else (chosen,)


def devices_for(trials: Sequence[Evidence]) -> tuple[Any, ...]:
    """Return the devices over which to spread trials, and give each its own compiled programs.

    Args:
        trials: of one function, at further inputs or in further dtypes.
    """
    devices = idle_devices()[: len(trials)]
    entries = sum(math.prod(target.shape) for target in trials[0].subject.targets)
    fixed = any(trial.place is not None or trial.subject.eager for trial in trials)
    if fixed or entries < _SMALL or len(devices) < 2:
        return devices[:1]
    own: dict[tuple[int, int], Evaluation] = {}
    for k, trial in enumerate(trials):
        key = k % len(devices), id(trial.subject)
        if trial.evaluation is not None:
            trial.evaluation = own.setdefault(key, Evaluation(**programs_of(trial.subject)))
    return devices


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], devices: Sequence[Any]
) -> list[Result]:
    """Return `work(item)` for each item, the k-th done on device k modulo their number."""
    if len(devices) < 2:
        return [work(item) for item in items]
    carried, every = settings(), list(items)

    def lane(number: int) -> list[Result]:
        with carried(), undisturbed(), jax.default_device(devices[number]):
            return [work(item) for item in every[number :: len(devices)]]

    with ThreadPoolExecutor(len(devices)) as threads:
        lanes = list(threads.map(lane, range(len(devices))))
    return [lanes[k % len(devices)][k // len(devices)] for k in range(len(every))]
