"""Checking gradients: laws, verdicts, location, diagnosis, audit."""

from gradlab.checking.auditing import audit
from gradlab.checking.entry import assert_gradients, check
from gradlab.checking.report import AuditedRule, AuditReport, CheckReport, Entry, Finding, Law, Leaf

__all__ = [
    "AuditReport",
    "AuditedRule",
    "CheckReport",
    "Entry",
    "Finding",
    "Law",
    "Leaf",
    "assert_gradients",
    "audit",
    "check",
]
