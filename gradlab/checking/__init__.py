"""Checking gradients: laws, verdicts, location, diagnosis, audit."""
