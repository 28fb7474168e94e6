"""What the entries of a map off its diagonal say of shot noise and number of pixels."""

import numpy as np
from jaxtyping import Float

# Shot noise of one photon in ten thousand frames, and of a million in each.
SHOT_BOUNDS = (1e-6, 1e4)


def off_diagonal(matrix: Float[np.ndarray, "frame frame"]) -> Float[np.ndarray, "frame frame"]:
    """The matrix with zeros on its diagonal."""
    out = matrix.copy()
    np.fill_diagonal(out, 0.0)
    return out


def completed(
    inverse: Float[np.ndarray, "frame frame"], residuals: Float[np.ndarray, "frame frame"]
) -> tuple[Float[np.ndarray, "frame"], float]:
    """The diagonal d at which tr (P (R + d))² is least, and that; P = `inverse`, R without one."""
    half = inverse @ residuals
    slope = np.sum(half * inverse, axis=1)
    diagonal = -np.linalg.solve(inverse**2, slope)
    return diagonal, float(np.sum(half * half.T) + slope @ diagonal)


def of_scatter(
    covariance: Float[np.ndarray, "frame frame"], signal: Float[np.ndarray, "frame frame"]
) -> tuple[float, float]:
    """Shot noise and number of pixels that make the scatter of a map off its diagonal most likely.

    Entries off the diagonal do not depend on shot noise on average; their scatter does. With
    K = `signal` + s 1, P = K⁻¹, the residuals R = C − K and the covariance of Gaussian intensities,
    N Cov(C_ij, C_kl) = K_ik K_jl + K_il K_jk, the best N and the diagonal d integrated out,

        −2 ln L = (T + 1) ln det K + ln det P∘P + ½T (T − 1) ln min_d tr (P (R + d))².
    """
    # Not at the top: most likelihoods have their diagonal.
    from scipy.optimize import minimize_scalar

    n, residuals = len(signal), off_diagonal(covariance - signal)

    def scatter(log_shot: float) -> tuple[float, float]:
        values, vectors = np.linalg.eigh(signal + np.exp(log_shot) * np.eye(n))
        values = np.maximum(values, SHOT_BOUNDS[0])
        inverse = (vectors / values) @ vectors.T
        _, least = completed(inverse, residuals)
        sizes = (n + 1) * np.sum(np.log(values)) + np.linalg.slogdet(inverse**2)[1]
        return sizes, max(least, np.finfo(float).tiny)

    def deviance(log_shot: float) -> float:
        sizes, least = scatter(log_shot)
        found = float(sizes + 0.5 * n * (n - 1) * np.log(least))
        return found if np.isfinite(found) else np.inf

    low, high = np.log(SHOT_BOUNDS)
    grid = np.linspace(low, high, 24)
    best = int(np.argmin([deviance(one) for one in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    found = minimize_scalar(deviance, bounds=ends, method="bounded", options={"xatol": 0.01})
    return float(np.exp(found.x)), n * (n - 1) / scatter(found.x)[1]
