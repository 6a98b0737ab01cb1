#!/usr/bin/env bash
# Install what tests need beside Python packages, where that can be done quietly: on Debian, as root. Elsewhere the tests
# that need one of them are skipped and say so; this never fails.
packages=(
  redis-server # the Redis cache is tested against it
  libb64-0d    # perf_analyzer, Triton's load generator, is linked with it
  prometheus   # and promtool: rules, alerts and dashboard of deploy/ are tested against it
)
command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || exit 0
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -qq -y --no-install-recommends "${missing[@]}")
"${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}"; } >/dev/null 2>&1 ||
  echo "not installed: ${missing[*]}; the tests that need them are skipped" >&2
exit 0
