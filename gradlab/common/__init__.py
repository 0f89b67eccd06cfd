"""What every room stands on: arrays of NumPy and JAX alike, and windows that walk over them."""
