"""Particles that diffuse in a sheared gap, one by one, which share no formula with the library."""

import numpy as np


def power_integral(t, a, b, c=0.0):
    """∫ a t^b + c, from 0 to t."""
    return a * t ** (b + 1) / (b + 1) + c * t


def intensities(t, q, travelled, strain, patterns, particles, rng):
    """The intensity of each pattern at each time, of mean one, `(pattern, frame)`.

    It is |Σ exp(i q·r)|² over the particles of a pattern. Displacements along q have the variance
    of what `travelled` grows by; the flow moves a particle along q by its depth y, uniform across
    the gap, times what `strain` [1] grows by.

    - `strain`: γ times the gap [Å] times the cosine between q and the flow, by time.
    """
    shape = (patterns, particles)
    phase = rng.uniform(0, 2 * np.pi, shape)
    y = rng.uniform(0, 1, shape)
    found = np.empty((patterns, t.size))
    for k in range(t.size):
        if k:
            step = y * (strain[k] - strain[k - 1])
            spread = np.sqrt(travelled[k] - travelled[k - 1])
            phase = phase + q * (step + spread * rng.standard_normal(shape))
        found[:, k] = np.cos(phase).sum(1) ** 2 + np.sin(phase).sum(1) ** 2
    return found / particles
