"""Who adds up the tiles, and who hands them out: loops, executors, devices, pieces of files."""
