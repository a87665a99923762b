#!/usr/bin/env bash
# Set up .venv-test and run all tests, or those given: ./test.sh Testing/core/test_metrics.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source Testing/setup.sh
drawing_libraries
prepare .venv-test "[test,slicer]"
.venv-test/bin/ruff check .
exec .venv-test/bin/python -m pytest --durations=10 "$@"
