"""Prior densities: families, and the priors of a whole problem."""
