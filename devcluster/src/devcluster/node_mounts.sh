#!/bin/sh
# Give a node's mount namespace its own view of the host. Run inside that namespace, which is private to the node.
#
#   $1  the cluster's folder on the host; the node sees it as /run/devcluster
set -eu
folder=$1
node=$folder/node

mkdir -p "$node/run" "$node/var-lib" "$node/var-log" "$node/sysctl"

# The components keep state below /run, /var/lib and /var/log whatever their flags say; here these are the node's own.
mount -t tmpfs tmpfs "$node/run"
mkdir "$node/run/devcluster" "$node/run/lock"
mount --bind "$folder" "$node/run/devcluster"
mount --bind "$node/var-log" /var/log
mount --rbind "$node/run" /run
mount --bind /run/devcluster/node/var-lib /var/lib

# Kubelet sets these for the whole machine unless it finds them as it likes them, so here it finds them so.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=/run/devcluster/node/sysctl/$(echo "${setting%=*}" | tr / .)
  echo "${setting#*=}" > "$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done

# Volumes that ask for mount propagation need a shared parent; shared among the node's containers, not with the host.
mount --make-rshared /
