"""Fields hold the laws of the functions that they stand for, in every lane that is exact."""

import numpy as np
import pytest

from gradlab.proof.constants import element_of, read
from gradlab.proof.field import Element, constant, lanes, residue

LANES = lanes(1, 0)


def draw(seed: int, shape: tuple[int, ...] = (7,)) -> Element:
    rng = np.random.default_rng(seed)
    return Element(LANES, np.array([rng.integers(1, int(p), shape) for p in LANES.primes], float))


def equal(first: Element, second: Element) -> bool:
    exact = np.broadcast_to(first.exact & np.asarray(second.exact), len(LANES))
    assert exact.sum() >= 9
    return bool((first.a == second.a)[exact].all())


X, Y = draw(1), draw(2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((X + Y).exp(), X.exp() * Y.exp()),
        ((-X).exp(), X.exp().inverse()),
        (X.exp().log(), X),
        ((X * Y).log(), X.log() + Y.log()),
        (X.sqrt() * X.sqrt(), X),
        ((X * X).sqrt(), X.magnitude()),
        (X.raised(1, 3) ** 3, X),
        (X.magnitude().raised_to(Y), (Y * X.magnitude().log()).exp()),
        (X.odd("erf"), -(-X).odd("erf")),
        ((X + Y) * (X - Y), X * X - Y * Y),
        (X * X.inverse(), X.made(X.a * 0 + 1)),
        (X.sqrt() * X.sqrt().inverse(), X.made(X.a * 0 + 1)),
    ],
)
def test_the_laws_of_exp_log_and_roots_hold(first: Element, second: Element) -> None:
    assert equal(first, second)


def test_the_laws_of_angles_hold() -> None:
    cos, sin = X.angle()
    cos_y, sin_y = Y.angle()
    assert equal(cos * cos + sin * sin, X.made(X.a * 0 + 1))
    assert equal((X + Y).angle()[1], sin * cos_y + cos * sin_y)
    assert equal((-X).angle()[1], -sin)


@pytest.mark.parametrize("seed", range(20))
def test_functions_that_differ_differ(seed: int) -> None:
    x, y = draw(seed), draw(seed + 100)
    for first, second in [
        (x.exp(), x.exp() * y.exp()),
        (x.log(), y.log()),
        (x.hashed("lgamma"), x.hashed("digamma")),
        (x.hashed("igamma", y), y.hashed("igamma", x)),
        (x.sqrt(), x),
    ]:
        assert not equal(first, second)


def test_residues_are_exact_up_to_the_last_whole_number() -> None:
    rng = np.random.default_rng(0)
    for prime in map(int, LANES.primes):
        most = (1 << 53) // prime
        whole = [prime * int(k) for k in (0, 1, most, most - 1, *rng.integers(0, most, 200))]
        near = [n + d for n in whole for d in (-2, -1, 0, 1, 2) if n + d < (1 << 53) - prime]
        numbers = [*near, *(-n for n in near)]
        found = residue(np.array(numbers, float), np.array(float(prime)))
        assert [int(r) for r in found] == [n % prime for n in numbers]


def test_zero_has_no_inverse() -> None:
    assert np.isnan(X.made(X.a * 0).inverse().a).all()


@pytest.mark.parametrize("shape", [(0,), (), (1,), (2,), (3,), (2, 5)])
def test_every_entry_is_inverted_beside_zeros(shape: tuple[int, ...]) -> None:
    element = draw(3, shape)
    if shape == (2, 5):
        element.a[:, 1, 2] = 0
    found = element.inverse().a
    assert found.shape == element.a.shape
    for lane, prime in enumerate(LANES.primes):
        for x, y in zip(element.a[lane].flat, found[lane].flat):
            assert np.isnan(y) if x == 0 else y == pow(int(x), -1, int(prime))


def test_of_a_number_and_its_negative_one_is_a_square() -> None:
    squares, magnitude = X.is_square(), X.magnitude()
    for lane, prime in enumerate(LANES.primes):
        for x, square in zip(X.a[lane], squares[lane]):
            assert square == (pow(int(x), (int(prime) - 1) // 2, int(prime)) == 1)
    root = X.sqrt()
    assert (root.a[squares].imag == 0).all()
    assert (root.a[~squares].real == 0).all()
    size = X.made(root.a.real + root.a.imag)
    assert ((size * size).a == magnitude.a).all()
    assert size.is_square().all()


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (0.044715, 53, ""),
        (float(np.float32(0.044715)), 24, ""),
        (1 / 3, 53, ""),
        (float(np.float32(1 / 3)), 24, ""),
        (0.5**0.5, 53, "sqrt(1/2)"),
        ((2 / np.pi) ** 0.5, 53, "sqrt(2 / pi)"),
        (float(np.float32((2 / np.pi) ** 0.5)), 24, "sqrt(2 / pi)"),
        (np.log(2.0), 53, "ln 2"),
        (2 * np.pi, 53, "pi"),
    ],
)
def test_constants_are_read_as_what_people_meant(value: float, digits: int, said: str) -> None:
    text = read(value, digits).text
    assert said in text if said else text == ""


def test_a_constant_is_the_number_that_a_program_computes() -> None:
    two, pi = constant(LANES, 2), element_of(LANES, read(np.pi, 53))
    assert equal(element_of(LANES, read((2 / np.pi) ** 0.5, 53)), (two * pi.inverse()).sqrt())
    assert equal(element_of(LANES, read(np.log(2.0), 53)), two.log())


def test_roots_of_products_are_products_of_roots() -> None:
    def root(number: float) -> Element:
        return element_of(LANES, read(number**0.5, 53))

    assert equal(root(8 / np.pi), root(2 / np.pi).times(2))
    assert equal(root(6.0), root(2.0) * root(3.0))
    assert equal(root(4 / np.pi), root(1 / np.pi).times(2))
    assert equal(root(0.5), root(2.0).over(2))


def test_the_exponential_undoes_the_logarithm_of_what_is_no_square() -> None:
    assert equal(X.log().exp(), X)
    assert equal((X.log() + Y.log() - Y.log()).exp(), X)
