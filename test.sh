#!/usr/bin/env bash
# Set up .venv-test and run all tests and the style check, or the tests given: ./test.sh Testing/core/test_metrics.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source Testing/setup.sh
drawing_libraries
prepare .venv-test "[test,slicer]"
status=0
.venv-test/bin/python -m pytest --durations=10 "$@" || status=$?
.venv-test/bin/ruff check . || status=$?
exit $status
