"""Programs are drawn by tests of the structure, not collected."""

collect_ignore_glob = ["*.py"]
