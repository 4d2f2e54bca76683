"""The shell around the core: reads the cluster, writes what the core decided, and waits. It decides nothing itself."""
