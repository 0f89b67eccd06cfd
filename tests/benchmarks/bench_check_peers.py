"""Other checkers at their defaults, asked about the rules of the fault corpus."""

import importlib.util
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from corpus.index import as_custom_vjp, cast
from corpus.model import COMPLEX, REAL


def check_grads_rejects(op: Any, backward: Any, inputs: Any, dtype: str) -> bool:
    """Whether jax.test_util.check_grads rejects a backward at its defaults."""
    from jax.test_util import check_grads

    with jax.enable_x64(dtype in ("float64", "complex128")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full = cast(inputs, dtype, jax=True)
        floats = [i for i, x in enumerate(full) if jnp.issubdtype(x.dtype, np.inexact)]
        rule = as_custom_vjp(op, backward)

        def of_floats(*values: Any) -> Any:
            return rule(*_with(full, floats, values))

        try:
            check_grads(of_floats, [full[i] for i in floats], order=1, modes=["rev"])
        except Exception:
            return True
        return False


def gradcheck_rejects(fast: bool) -> Any:
    """Return whether torch.autograd.gradcheck rejects a backward at its defaults."""

    def rejects(op: Any, backward: Any, inputs: Any, dtype: str) -> bool:
        import torch

        full = cast(inputs, dtype, jax=False)
        floats = [i for i, x in enumerate(full) if np.issubdtype(x.dtype, np.inexact)]

        class Rule(torch.autograd.Function):
            @staticmethod
            def forward(context: Any, *values: Any) -> Any:
                context.save_for_backward(*values)
                output = op.forward(np, *_with(full, floats, [v.numpy() for v in values]))
                outputs = [torch.from_numpy(np.array(o)) for o in _tuple(output)]
                return tuple(outputs) if isinstance(output, tuple) else outputs[0]

            @staticmethod
            def backward(context: Any, *upstreams: Any) -> Any:
                values = [v.detach().numpy() for v in context.saved_tensors]
                # torch's gradients are the conjugates of JAX's
                g = [np.asarray(u.detach().resolve_conj().numpy().conj()) for u in upstreams]
                upstream = tuple(g) if len(g) > 1 else g[0]
                made = _tuple(backward(np, upstream, *_with(full, floats, values)))
                return tuple(torch.from_numpy(np.array(made[i]).conj()) for i in floats)

        tensors = [torch.from_numpy(np.array(full[i])).requires_grad_() for i in floats]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                return not torch.autograd.gradcheck(Rule.apply, tensors, fast_mode=fast)
            except Exception:
                return True

    return rejects


def _with(full: Any, positions: list[int], values: Any) -> list[Any]:
    """Return a list of inputs with some of them replaced."""
    changed = dict(zip(positions, values))
    return [changed.get(i, x) for i, x in enumerate(full)]


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


PEERS: dict[str, Any] = {
    "jax check_grads": (check_grads_rejects, (*REAL, *COMPLEX)),
}
if importlib.util.find_spec("torch"):
    PEERS["torch gradcheck fast"] = (gradcheck_rejects(True), ("float64", "float32", "complex128"))
    PEERS["torch gradcheck full"] = (gradcheck_rejects(False), ("float64", "float32", "complex128"))
