#!/usr/bin/env bash
# Set up .venv-demo, register a sample pair and show it in the browser. Arguments go to `neuralreg demo` (see --help);
# with --no-browser the page is left out, and what it needs is not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source Testing/setup.sh
venv="$(environment .venv-demo)"
prepare "$venv"
case " $* " in
  *" --no-browser "*) ;;
  *) (drawing_libraries && extend "$venv" "[app]") || echo "The demo goes on without the page, to the report." ;;
esac
exec "$venv/bin/python" -m neuralreg demo "$@"
