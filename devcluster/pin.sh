#!/usr/bin/env bash
# Write the go.mod and go.sum from which one set of programs is built (a maintainer's tool, run when a version moves).
#
# Usage: pin.sh kubernetes VERSION            e.g. pin.sh kubernetes 1.37.2
#        pin.sh NAME MODULE@VERSION PACKAGE…  e.g. pin.sh helm helm.sh/helm/v4@v4.3.1 helm.sh/helm/v4/cmd/helm
#
# The `tool` lines of a go.mod name the programs; the builds then run with -mod=readonly, so what is committed is
# what is built. A dependency's own `replace` lines do not count here, so they are written down again: those that
# name a module as they stand, Kubernetes' folders (./staging/…) as the modules published beside the release.
set -euo pipefail

name=$1
folder=$(dirname "$0")/src/devcluster/gomodules
if [ "$name" = kubernetes ]; then
  version=$2
  name=kubernetes-$version
  module=k8s.io/kubernetes
  packages=(k8s.io/kubernetes/cmd/kube{-apiserver,-controller-manager,-scheduler,let,-proxy,ctl})
else
  version=${2##*@v}
  module=${2%@*}
  packages=("${@:3}")
fi

rm -rf "${folder:?}/$name"
mkdir -p "$folder/$name"
cd "$folder/$name"
go mod init "servicelink.dev/devcluster/$name"
# The oldest Go that may build it, not the newest that happens to be here; `go get` raises it where a module asks.
go mod edit -go=1.26.0
go mod edit -require="$module@v$version"

source=$(go mod download -json "$module@v$version" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
sed -n 's|^\(replace\)\?\s*\(\S\+\)\( v\S\+\)\? => \(\S\+\)\s*\(v\S\+\)\?.*|\2 \4 \5|p' "$source" |
  while read -r old new at; do
    case $new in
      ./staging/*) go mod edit -replace="$old=$old@v0.${version#*.}" ;;
      .*) ;; # other folders of a repository are modules published with it, at the versions its requires name
      *) go mod edit -replace="$old=$new@$at" ;;
    esac
  done

go get -tool "${packages[@]/%/@v$version}"
go mod tidy
