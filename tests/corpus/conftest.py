"""The corpus is read by tests, not collected: as a doctest each file would register itself twice."""

collect_ignore_glob = ["*.py"]
