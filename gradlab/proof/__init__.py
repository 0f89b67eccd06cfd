"""Proof by identity testing: whether two programs are one formula, in prime fields."""

from gradlab.proof.identity import BUDGET, LONG, Proof, prove

__all__ = ["BUDGET", "LONG", "Proof", "prove"]
