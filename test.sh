#!/usr/bin/env bash
# Set up .venv-test and run all tests and the style check, or the tests given: ./test.sh Testing/core/test_metrics.py
# The tests of the page (Testing/app) run in .venv-app, as trame-slicer brings another slicer-core than the panel's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source Testing/setup.sh
drawing_libraries
venv="$(environment .venv-test)"
prepare "$venv" "[test,slicer]"
status=0
"$venv/bin/python" -m pytest --durations=10 "$@" || status=$?
"$venv/bin/python" -m ruff check . || status=$?
"$venv/bin/python" -m ruff format --check . || status=$?
if [ $# = 0 ]; then
  app="$(environment .venv-app)"
  if (page_environment "$app"); then
    NEURALREG_TEST_PYTHON="$venv/bin/python" "$app/bin/python" -m pytest Testing/app -rs || status=$?
  else
    echo "Testing/app was skipped: what the page needs could not be installed."
  fi
fi
exit $status
