"""Data sampled in shards: how they are divided, sampled, compared and put together again."""
