"""Calls, and what changes an array in place: read by the programs inside.

A primitive that is no call here stays closed, whatever programs it holds.
"""

from dataclasses import replace

from gradlab.primitives.record import Primitive, each

_CALL = Primitive(name="", calls="")
_PLAIN = replace(_CALL, plain=True)
_CHECKPOINT = replace(_CALL, words="checkpoint")
_CELL = Primitive(name="", stateful=True)

RECORDS = (
    *each(_PLAIN, "jit pjit call closed_call core_call core_closed_call xla_call"),
    *each(_CHECKPOINT, "checkpoint remat remat2"),
    replace(_CHECKPOINT, name="remat_opt", calls="fwd_jaxpr"),
    *each(_CALL, "custom_jvp_call custom_jvp_call_jaxpr custom_vjp_call custom_vjp_call_jaxpr"),
    replace(_CALL, name="custom_vmap_call", calls="call"),
    replace(_CALL, name="linear_call"),
    replace(_CALL, name="composite", calls="jaxpr"),
    replace(_PLAIN, name="eval_jaxpr"),
    *each(
        _CELL, "new_ref empty_ref get swap addupdate freeze free_ref run_state accum_grad_in_ref"
    ),
)
