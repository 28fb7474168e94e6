"""One fit for each angle, and their combination."""
