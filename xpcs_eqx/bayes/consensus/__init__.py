"""Consensus Monte Carlo: shards of the data, sampled apart and combined."""
