"""Proof by identity testing: whether two programs are one formula, in prime fields."""

from gradlab.proof.identity import BUDGET, LONG, STOPPED, Proof, prove

__all__ = ["BUDGET", "LONG", "STOPPED", "Proof", "prove"]
