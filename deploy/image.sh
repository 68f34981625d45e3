#!/bin/sh
# Build the image of the packaged models, or serve from it: deploy/image.sh build|run
# CONTAINER_TOOL  docker, podman or buildah; otherwise the first of them that works
# IMAGE_NAME      the image's name, fashion-mnist; its tag is package.version of params.yaml
# build           BASE_IMAGE, PIP_INDEX_URL: build arguments of the Dockerfile
# run             MLSERVER_HTTP_PORT, MLSERVER_GRPC_PORT, MLSERVER_METRICS_PORT: on the loopback
set -eu
cd "$(dirname "$0")/.."

fail() { echo "error: $*" >&2; exit 1; }

version=$(sed -n '/^package:/,/^[a-z]/s/^  version: *\([^ ]*\).*/\1/p' params.yaml)
image=${IMAGE_NAME:-fashion-mnist}:$version
for model in serving/models/*/; do
  [ -e "$model$version/model-settings.json" ] ||
    fail "${model%/}: no $version packaged (package.version); package it with: dvc repro"
done

tool='' reasons=''
for candidate in ${CONTAINER_TOOL:-docker podman buildah}; do
  if ! command -v "$candidate" > /dev/null; then
    reasons="$reasons$candidate is not installed, "
  elif reason=$("$candidate" info 2>&1 > /dev/null); then
    tool=$candidate
    break
  else
    reasons="$reasons$candidate does not work ($(echo "$reason" | sed -n '$p')), "
  fi
done
[ "$tool" ] || fail "no container tool: ${reasons%, }; install or start docker, podman or buildah"

build() {
  format=--format=docker # the format of the OCI has no health check
  [ "$tool" != docker ] || format=''
  "$tool" build $format ${BASE_IMAGE:+"--build-arg=BASE_IMAGE=$BASE_IMAGE"} \
    ${PIP_INDEX_URL:+"--build-arg=PIP_INDEX_URL=$PIP_INDEX_URL"} \
    --file=deploy/Dockerfile --tag="$image" . ||
    fail "$tool could not build $image; the lines above say why"
}

run() {
  rest=${MLSERVER_HTTP_PORT:-8080} grpc=${MLSERVER_GRPC_PORT:-8081}
  metrics=${MLSERVER_METRICS_PORT:-8082}
  echo "Try it, once the models are ready: http://localhost:$rest/demo"
  [ "$tool" = buildah ] || exec "$tool" run --rm --init --read-only --tmpfs=/tmp --cap-drop=ALL \
    --security-opt=no-new-privileges --publish="127.0.0.1:$rest:8080" \
    --publish="127.0.0.1:$grpc:8081" --publish="127.0.0.1:$metrics:8082" "$image"
  # A container of buildah shares the host's network, and does not run the image's command.
  container=$(buildah from --pull-never "$image") ||
    fail "$image: no such image; build it with: make image"
  trap 'buildah rm "$container" > /dev/null' EXIT
  buildah run --env=MLSERVER_HOST=127.0.0.1 --env=MLSERVER_HTTP_PORT="$rest" \
    --env=MLSERVER_GRPC_PORT="$grpc" --env=MLSERVER_METRICS_PORT="$metrics" \
    "$container" -- mlserver start serving &
  trap 'kill $!' INT TERM
  wait $! || wait $! # the first is cut short by a signal
}

case "$*" in
  build | run) "$1" ;;
  *) fail "expected build or run, got: $*" ;;
esac
