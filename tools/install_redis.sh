#!/usr/bin/env bash
# Install redis-server, against which the Redis cache is tested, where that can be done quietly: on Debian, as root.
# Elsewhere the tests that need it are skipped; this never fails.
command -v redis-server valkey-server >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  install="apt-get install -qq -y --no-install-recommends redis-server"
  $install >/dev/null 2>&1 || { apt-get update -qq && $install; } >/dev/null 2>&1
fi
command -v redis-server >/dev/null || echo "redis-server is not installed: tests against Redis are skipped" >&2
exit 0
