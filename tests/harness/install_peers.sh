#!/usr/bin/env bash
# Installs the servers and tools that tests and benches compare with, from Debian's packages.
#
#   install_peers.sh test          redis-server, redis-cli, prometheus, prometheus-alertmanager,
#                                  chromium
#   install_peers.sh test bench    nutcracker and haproxy as well
#
# Needs root and apt-get. Anywhere else, and when the installation fails, it names what is missing
# and ends well: tests that need a missing server are skipped and listed. No service is started.
set -euo pipefail

declare -A package_of=(
  [chromium]=chromium
  [redis-server]=redis-server [redis-cli]=redis-tools [nutcracker]=nutcracker [haproxy]=haproxy
  [prometheus]=prometheus [prometheus-alertmanager]=prometheus-alertmanager
)
PATH="$PATH:/usr/sbin:/usr/local/sbin"

missing=() packages=()
need() {
  if ! command -v "$1" >/dev/null; then
    missing+=("$1")
    packages+=("${package_of[$1]}")
  fi
}
for set in "${@:-test}"; do
  case $set in
    test)
      need redis-server; need redis-cli; need prometheus; need prometheus-alertmanager
      need chromium ;;
    bench) need nutcracker; need haproxy ;;
    *) echo "usage: ${0##*/} [test] [bench]" >&2; exit 2 ;;
  esac
done
((${#missing[@]})) || exit 0

without() {
  echo "missing: ${missing[*]} ($1); what needs them is left out" >&2
  exit 0
}
[[ $(id -u) == 0 ]] || without "install the packages ${packages[*]} as root"
command -v apt-get >/dev/null || without "there is no apt-get here"

# A package asks this file whether it may start its service. Do not replace one that is there.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

install() {
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends -qq \
    "${packages[@]}" </dev/null 2>&1
}
echo "installing ${packages[*]}"
if ! said=$(install); then
  # The package lists may be missing or old.
  said=$(apt-get update -qq </dev/null 2>&1 && install) || {
    printf '%s\n' "$said" | tail -n 3 >&2
    without "apt-get could not install ${packages[*]}"
  }
fi
