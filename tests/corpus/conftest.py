"""The corpus is read by tests, not collected: as doctests its files would register twice."""

collect_ignore_glob = ["*.py"]
