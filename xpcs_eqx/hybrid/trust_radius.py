"""How far a quadratic model is believed."""

import equinox as eqx


class TrustRadius(eqx.Module):
    """The rule for the radius of trust, in normalised units.

    A ratio of true to predicted reduction below `poor` shrinks it, one above `good` for a step that
    reached it lets it grow. Nocedal & Wright (2006), algorithm 4.1.
    """

    start: float = 1.0
    smallest: float = 1e-8
    largest: float = 1e3
    poor: float = 0.25
    good: float = 0.75
    shrink: float = 0.5
    grow: float = 2.0

    def update(self, radius: float, length: float, ratio: float, at_boundary: bool) -> float:
        """The radius after a step of the given length; it may fall below `smallest`."""
        if not ratio >= self.poor:
            return self.shrink * min(radius, length)
        if ratio > self.good and at_boundary:
            return min(self.grow * radius, self.largest)
        return radius

    def collapsed(self, radius: float) -> bool:
        """Whether the radius is of no more use."""
        return radius < self.smallest
