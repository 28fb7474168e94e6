"""CMA-ES with restarts, on any objective."""
