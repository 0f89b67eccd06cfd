"""The laws of a correct gradient; the book lists them."""
