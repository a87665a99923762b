#!/usr/bin/env bash
# Set up .venv-demo, register a sample pair and write its report. Arguments go to `neuralreg demo` (see --help).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source Testing/setup.sh
prepare .venv-demo
exec .venv-demo/bin/neuralreg demo "$@"
