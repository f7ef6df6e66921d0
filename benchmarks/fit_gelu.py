"""Fit the polynomial of mindone_coca.kernels.cpu.NormalCDF and print its error against the exact GELU.

Phi(x) = sigmoid(g(x)) exactly for g(x) = 2 atanh(erf(x / sqrt 2)); we fit P(x^2) to g(x) / x. An error d in P moves
GELU(x) by about x^2 Phi (1 - Phi) d, so that is the weight of a least-squares fit, which Lawson's reweighting turns
into a minimax fit.

    python benchmarks/fit_gelu.py [degree] [cap]
"""

import math
import sys

import numpy as np


def fit(degree: int, limit: float) -> np.ndarray:
    x = np.linspace(1e-3, limit, 8000)
    erfc = np.array([math.erfc(v / math.sqrt(2)) for v in x])
    target = np.log((2 - erfc) / erfc) / x
    sensitivity = 0.25 * x * x * erfc * (2 - erfc)
    basis = np.polynomial.chebyshev.chebvander(2 * (x / limit) ** 2 - 1, degree)
    weight = np.ones_like(x)
    best, best_error = None, np.inf
    for _ in range(500):
        rows = np.sqrt(weight) * sensitivity
        coefficients = np.linalg.lstsq(basis * rows[:, None], target * rows, rcond=None)[0]
        error = np.abs(sensitivity * (basis @ coefficients - target))
        if error.max() < best_error:
            best, best_error = coefficients, error.max()
        weight *= error / error.max() + 1e-3
        weight /= weight.sum()
    square = np.polynomial.Polynomial([-1, 2 / limit**2])
    return np.polynomial.chebyshev.Chebyshev(best).convert(kind=np.polynomial.Polynomial)(square).coef[::-1]


def main() -> None:
    degree = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    limit = float(sys.argv[2]) if len(sys.argv) > 2 else 5.5
    coefficients = fit(degree, limit)
    x = np.linspace(-12, 12, 400_001)
    exact = x * 0.5 * np.array([math.erfc(-v / math.sqrt(2)) for v in x])
    for dtype in (np.float64, np.float32):
        v: np.ndarray = x.astype(dtype)
        square = np.minimum(v * v, dtype(limit**2))
        poly = np.full_like(v, dtype(coefficients[0]))
        for c in coefficients[1:]:
            poly = poly * square + dtype(c)
        ours = v / (1 + np.exp(-v * poly))
        print(f"{dtype.__name__}: largest error {np.abs(ours - exact).max():.2e}")
    print(
        f"cap {limit**2}\ncoefficients, highest power first:", *(f"{c!r}," for c in coefficients.tolist()), sep="\n    "
    )


if __name__ == "__main__":
    main()
