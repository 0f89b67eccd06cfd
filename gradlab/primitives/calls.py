"""Calls, and what changes an array in place: read by the programs inside.

A primitive that is no call here stays closed, whatever programs it holds.
"""

from dataclasses import replace

from gradlab.primitives.record import Primitive

_CALL = Primitive(name="", calls="")
_PLAIN = replace(_CALL, plain=True)
_CHECKPOINT = replace(_CALL, words="checkpoint")
_CELL = Primitive(name="", stateful=True)

RECORDS = (
    replace(_PLAIN, name="jit"),
    replace(_PLAIN, name="pjit"),
    replace(_PLAIN, name="call"),
    replace(_PLAIN, name="closed_call"),
    replace(_PLAIN, name="core_call"),
    replace(_PLAIN, name="core_closed_call"),
    replace(_PLAIN, name="xla_call"),
    replace(_CHECKPOINT, name="checkpoint"),
    replace(_CHECKPOINT, name="remat"),
    replace(_CHECKPOINT, name="remat2"),
    replace(_CHECKPOINT, name="remat_opt", calls="fwd_jaxpr"),
    replace(_CALL, name="custom_jvp_call"),
    replace(_CALL, name="custom_jvp_call_jaxpr"),
    replace(_CALL, name="custom_vjp_call"),
    replace(_CALL, name="custom_vjp_call_jaxpr"),
    replace(_CALL, name="custom_vmap_call", calls="call"),
    replace(_CALL, name="linear_call"),
    replace(_CALL, name="composite", calls="jaxpr"),
    replace(_PLAIN, name="eval_jaxpr"),
    replace(_CELL, name="new_ref"),
    replace(_CELL, name="empty_ref"),
    replace(_CELL, name="get"),
    replace(_CELL, name="swap"),
    replace(_CELL, name="addupdate"),
    replace(_CELL, name="freeze"),
    replace(_CELL, name="free_ref"),
    replace(_CELL, name="run_state"),
    replace(_CELL, name="accum_grad_in_ref"),
)
