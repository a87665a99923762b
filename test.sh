#!/usr/bin/env bash
# Set up .venv-test and run all tests and the style check, or the tests given: ./test.sh Testing/core/test_metrics.py
# The tests of the page (Testing/app) run in .venv-app, as trame-slicer brings another slicer-core than the panel's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source Testing/setup.sh
drawing_libraries
prepare .venv-test "[test,slicer]"
status=0
.venv-test/bin/python -m pytest --durations=10 "$@" || status=$?
.venv-test/bin/ruff check . || status=$?
.venv-test/bin/ruff format --check . || status=$?
if [ $# = 0 ]; then
  if (page_environment .venv-app); then
    NEURALREG_TEST_PYTHON=.venv-test/bin/python .venv-app/bin/python -m pytest Testing/app -rs || status=$?
  else
    echo "Testing/app was skipped: what the page needs could not be installed."
  fi
fi
exit $status
