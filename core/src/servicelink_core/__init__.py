"""The product's decisions: what should stand in the cluster, given links, policies, Services, workloads, Secrets.

Pure functions over plain data: no I/O, clock, environment, randomness or logging. May import the contract only.
"""
