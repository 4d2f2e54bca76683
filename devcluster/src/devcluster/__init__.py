"""A real Kubernetes for development and tests, built from source and started with one command.

Two levels: a *control plane* (etcd, API server, controller manager; no root needed) and a *node* (scheduler,
containerd, kubelet, kube-proxy and DNS as well, so that Pods run; root on Linux). Nothing is fetched but Go modules and
Debian packages, and nothing stays on the host: a cluster is one folder, a set of processes marked with that folder's
name, and, with a node, one holder process whose death takes the node's namespaces along.
"""
