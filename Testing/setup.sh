# Sourced by demo.sh and test.sh: a virtual environment with everything in it, and the system's libraries for drawing
# without a screen. Nothing outside the repository is changed, except that root gets missing libraries from apt-get.
#
# PYTHON        the interpreter to use (default: the newest of 3.13, 3.12, 3.11 that is found)
# PIP_ARGUMENTS more for pip; for a small, CPU-only PyTorch on Linux:
#               PIP_ARGUMENTS="--extra-index-url https://download.pytorch.org/whl/cpu"
# NEURALREG_ENVIRONMENT  a Python environment that has everything already: it is used, and nothing is installed

TORCH="torch==2.13.0"

trap 'exit 130' INT TERM # pip ends politely on Ctrl-C; without this the script would go on

stop() {
  echo "$*" >&2
  exit 2
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  stop "Python 3.11, 3.12 or 3.13 is needed; install one of them, or name it: PYTHON=/path/to/python $0"
}

# environment FOLDER: the environment to use, FOLDER unless the user names another one.
environment() {
  echo "${NEURALREG_ENVIRONMENT:-$1}"
}

is_given() {
  [ -n "${NEURALREG_ENVIRONMENT:-}" ]
}

if is_given; then
  export PYTHONPATH="$PWD/NeuralRegistration${PYTHONPATH:+:$PYTHONPATH}" # the project may not be installed there
fi

# prepare FOLDER [EXTRAS]: a virtual environment with the project and its extras; nothing is done when it is up to date.
prepare() {
  is_given && return
  local venv="$1" extras="${2:-}" python state
  python="$(find_python)" || exit 2
  state="$("$python" -V) $TORCH $extras $(cksum <pyproject.toml)"
  if [ -f "$venv/.ready" ] && [ "$(cat "$venv/.ready")" = "$state" ]; then
    return
  fi
  echo "Setting up $venv with $("$python" -V) (a minute or two, about 2 GB) …"
  rm -rf "$venv"
  make_venv "$python" "$venv"
  # shellcheck disable=SC2086  # PIP_ARGUMENTS is a list of words
  pip_install "$venv" $TORCH ${PIP_ARGUMENTS:-}
  # shellcheck disable=SC2086
  pip_install "$venv" -e ".$extras" $TORCH ${PIP_ARGUMENTS:-}
  echo "$state" >"$venv/.ready"
}

# extend FOLDER EXTRAS: more extras for a virtual environment that `prepare` made, once.
extend() {
  is_given && return
  local venv="$1" extras="$2"
  if [ ! -f "$venv/.ready$extras" ]; then
    echo "Adding $extras to $venv …"
    # shellcheck disable=SC2086
    pip_install "$venv" -e ".$extras" $TORCH ${PIP_ARGUMENTS:-}
    touch "$venv/.ready$extras"
  fi
}

# page_environment FOLDER: what the page and its tests need, without PyTorch, which they take from another environment.
page_environment() {
  is_given && return
  local venv="$1" python state extras
  python="$(find_python)" || exit 2
  state="$("$python" -V) $(cksum <pyproject.toml)"
  if [ ! -f "$venv/.ready" ] || [ "$(cat "$venv/.ready")" != "$state" ]; then
    echo "Setting up $venv for the page (half a minute, about 1 GB) …"
    rm -rf "$venv"
    make_venv "$python" "$venv"
    extras="$("$python" -c 'import tomllib; print(*(line for name in ("app", "browser") for line in
      tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][name]))')"
    # shellcheck disable=SC2086
    pip_install "$venv" numpy SimpleITK $extras
    echo "$state" >"$venv/.ready"
  fi
  find_browser "$venv"
}

# find_browser FOLDER: a Chromium for the tests, playwright's own where there is none. Without it these tests skip.
find_browser() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && return
  done
  echo "Fetching a browser for the tests of the page …"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    timeout 300 "$1/bin/python" -m playwright install --with-deps --only-shell chromium >/dev/null 2>&1 ||
      { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1
  else
    timeout 300 "$1/bin/python" -m playwright install --only-shell chromium >/dev/null 2>&1
  fi || echo "There is no browser: the tests of the page that need one will skip."
}

make_venv() {
  if "$1" -m venv "$2" 2>/dev/null; then
    return
  fi
  rm -rf "$2"
  # Debian and Ubuntu keep the module that makes virtual environments in a package of its own.
  local package
  package="$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  install_packages "$package"
  "$1" -m venv "$2" || stop "No virtual environment could be made with $1; install $package and try again."
}

pip_install() {
  local venv="$1"
  shift
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
    stop "pip could not install: $*. Check the network (or the proxy) and try again."
}

# install_packages NAME …: by apt-get when we may, else the user is asked to.
install_packages() {
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "Installing with apt-get: $*"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
      >/dev/null || stop "apt-get could not install: $*"
  else
    stop "Please install these packages and try again (Debian and Ubuntu: sudo apt-get install $*)."
  fi
}

# What VTK and Qt need to draw without a screen: "library package" (Debian's names; the libraries tell elsewhere).
DRAWING="libEGL.so.1 libegl1
libEGL_mesa.so.0 libegl-mesa0
libGL.so.1 libgl1
libOpenGL.so.0 libopengl0
libGLX_mesa.so.0 libglx-mesa0
libX11.so.6 libx11-6
libxkbcommon.so.0 libxkbcommon0
libdbus-1.so.3 libdbus-1-3
libfontconfig.so.1 libfontconfig1
libfreetype.so.6 libfreetype6
libglib-2.0.so.0 libglib2.0-0
libgssapi_krb5.so.2 libgssapi-krb5-2"

drawing_libraries() {
  is_given && return
  [ "$(uname)" = Linux ] || return 0
  local known missing="" library package
  known="$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p)"
  while read -r library package; do
    case "$known" in
      *"$library "*) ;;
      *) missing="$missing $package" ;;
    esac
  done <<<"$DRAWING"
  # Mesa's software renderer has no entry in the linker's list.
  compgen -G "/usr/lib*/*/dri/*_dri.so" >/dev/null || compgen -G "/usr/lib*/dri/*_dri.so" >/dev/null ||
    missing="$missing libgl1-mesa-dri"
  # shellcheck disable=SC2086
  [ -z "$missing" ] || install_packages $missing
}
