"""The log density a sampler sees, and the coordinates it moves in."""
