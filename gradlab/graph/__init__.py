"""Computational graphs: nodes wired together, run forward and backward, grouped and drawn."""

from gradlab.graph.graph import Graph

__all__ = ["Graph"]
