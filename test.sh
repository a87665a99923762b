#!/usr/bin/env bash
# Set up .venv-test and run all tests and the style check, or the tests given: ./test.sh Testing/core/test_metrics.py
# All of them run as two groups beside each other, of one thread each: the core, and what has a user interface.
# The tests of the page (Testing/app) run in .venv-app, as trame-slicer brings another slicer-core than the panel's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source Testing/setup.sh
drawing_libraries
venv="$(environment .venv-test)"
prepare "$venv" "[test,slicer]"
export OMP_NUM_THREADS=1 # on volumes as small as those of the tests a second thread costs more than it brings

test_with() {
  "$1/bin/python" -m pytest --durations=10 "${@:2}"
}

test_interfaces() {
  local app status=0
  test_with "$venv" Testing/slicer || status=$?
  app="$(environment .venv-app)"
  if (page_environment "$app"); then
    NEURALREG_TEST_PYTHON="$venv/bin/python" test_with "$app" Testing/app -rs || status=$?
  else
    echo "Testing/app was skipped: what the page needs could not be installed."
  fi
  return $status
}

status=0
if [ $# = 0 ]; then
  told="$(mktemp)"
  set -m # a process group of its own, which ends with this script
  test_interfaces </dev/null >"$told" 2>&1 &
  set +m
  trap 'kill -- -$! 2>/dev/null || true; rm "$told"' EXIT
  test_with "$venv" --ignore=Testing/slicer --ignore=Testing/app || status=$?
  wait $! || status=$?
  cat "$told"
else
  test_with "$venv" "$@" || status=$?
fi
"$venv/bin/python" -m ruff check . || status=$?
"$venv/bin/python" -m ruff format --check . || status=$?
exit $status
