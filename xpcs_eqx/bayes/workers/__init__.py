"""Who samples shards: this process, others of this machine, executors, clusters."""
