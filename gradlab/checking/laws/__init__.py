"""The laws of a correct gradient, and the book that lists them."""

from gradlab.checking.laws.book import LAWS, hold_laws

__all__ = ["LAWS", "hold_laws"]
