"""The hybrid streaming optimiser: normalise, warm up, Gauss–Newton, finalise, from any source."""
