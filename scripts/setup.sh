#!/usr/bin/env bash
# Makes libtorch ready for the build: checks the tools, fills .venv with the torch wheel, links .torch
# to it. `make setup`, and every target that compiles, runs this; it is quick when nothing is to do,
# and repairs what a stopped run left behind.
#
#   CUDA=1       the full set with CUDA
#   CUDA=0       the slim set: libtorch for the CPU alone
#   (neither)    what was asked for last; else full where nvidia-smi answers, and slim elsewhere
#   PYTHON=...   the interpreter that makes .venv
#   LIBTORCH=... a libtorch of your own, used instead: no Python is needed and no .venv is made
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly torch=2.11.0 # the release that the crate tch binds; build.rs checks it too
# libtorch_cpu of the CUDA wheel needs libcudart and libcupti, and nothing more of CUDA.
readonly slim_pins=("torch==$torch" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
# And what pip finds that it needs; the last two are headers, for the NCCL half of src/ffi/shim.
readonly full_pins=("torch==$torch" nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85)
readonly cuda_libs=('torch/lib/libtorch_cuda*.so' torch/lib/libc10_cuda.so
    torch/lib/libtorch_nvshmem.so torch/lib/libcaffe2_nvrtc.so)
# What the full set brings. Other packages in .venv are not ours to judge.
readonly full_wheels=(torch triton 'nvidia-*' 'cuda-*' filelock fsspec jinja2 markupsafe mpmath
    networkx setuptools sympy typing-extensions)
readonly python_min=10 python_max=14 # torch has wheels for Python 3.10 to 3.14
readonly slim_gb=3 full_gb=9         # with the downloads, and 2 GB of build output
readonly stamp=.venv/af2-libtorch    # state|flavour|asked|pins
readonly venv_python=.venv/bin/python

say() { printf 'setup: %s\n' "$*"; }
stop() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# --- tools: every missing one is told, not only the first ---

missing=()

# 1.85 and 1.95.0-nightly as one comparable number.
version_number() {
    local major minor
    IFS=. read -r major minor _ <<<"$1"
    minor=${minor%%[!0-9]*}
    printf '%d' $((10#${major:-0} * 1000 + 10#${minor:-0}))
}

check_rust() {
    local wanted found tool
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' Cargo.toml)
    for tool in cargo rustc; do
        if ! has "$tool" && [[ -x ${CARGO_HOME:-${HOME:-}/.cargo}/bin/$tool ]]; then
            missing+=("$tool is installed but not on the PATH: \`. \"${CARGO_HOME:-$HOME/.cargo}/env\"\`, or open a new shell")
        elif ! has "$tool"; then
            missing+=("$tool is missing: install Rust $wanted or newer from https://rustup.rs")
        elif ! found=$("$tool" --version 2>/dev/null); then
            missing+=("$tool does not run (try \`$tool --version\`): \`rustup default stable\`, or install Rust from https://rustup.rs")
        else
            found=${found#* }
            found=${found%% *}
            if (($(version_number "$found") < $(version_number "$wanted"))); then
                missing+=("$tool $found is too old, $wanted or newer is needed: \`rustup update stable\`, or install Rust from https://rustup.rs")
            fi
        fi
    done
}

check_compiler() {
    # What the build itself calls: CXX (c++) for tch's C++ half, cc for C and for linking.
    local cxx=${CXX:-c++}
    if ! has "${cxx%% *}"; then
        if [[ -n ${CXX:-} ]]; then
            missing+=("the C++ compiler that CXX names, $CXX, is missing: install it, or unset CXX and install g++")
        else
            missing+=("g++ is missing: apt install g++")
        fi
    elif ! has cc; then
        missing+=("gcc (as cc, the linker) is missing: apt install gcc")
    fi
    has make || missing+=("make is missing: apt install make")
}

# Sets `python` to an interpreter that torch has wheels for, and checks that it can make .venv.
python="" has_ensurepip=no
check_python() {
    local candidates=(python3) candidate found="" about minor
    for ((minor = python_max; minor >= python_min; minor--)); do
        candidates+=("python3.$minor")
    done
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        about=$("$candidate" -c 'import sys; print("%d %d" % sys.version_info[:2])' 2>/dev/null) || continue
        minor=${about#* }
        if [[ $about == 3\ * ]] && ((minor >= python_min && minor <= python_max)); then
            python=$candidate
            break
        fi
        found=${found:-$candidate is ${about/ /.}}
    done
    if [[ -z $python ]]; then
        if [[ -n $found ]]; then
            missing+=("$found, but torch $torch needs Python 3.$python_min to 3.$python_max: install one and name it, as in \`make setup PYTHON=python3.12\`")
        else
            missing+=("${PYTHON:-python3} is missing: apt install python3 python3-venv (3.$python_min to 3.$python_max)")
        fi
        return
    fi
    # Debian keeps ensurepip in a package of its own; a pip that can serve another environment will do.
    local modules
    modules=$("$python" -c '
import importlib.util as util
have = [name for name in ("venv", "ensurepip") if util.find_spec(name)]
if util.find_spec("pip"):
    from importlib.metadata import version
    have += ["pip"] if tuple(map(int, version("pip").split(".")[:2])) >= (22, 3) else []
print(*have)' 2>/dev/null) || modules=
    if [[ " $modules " != *" venv "* ]]; then
        missing+=("the venv module of $python is missing: apt install python3-venv")
    elif [[ " $modules " != *" ensurepip "* && " $modules " != *" pip "* ]]; then
        missing+=("$python has neither ensurepip nor pip (22.3 or newer): apt install python3-venv")
    fi
    if [[ " $modules " == *" ensurepip "* ]]; then has_ensurepip=yes; fi
}

check_platform() {
    local system libc
    system="$(uname -s) $(uname -m)"
    [[ $system == "Linux x86_64" ]] ||
        missing+=("the set-up installs libtorch on Linux x86_64 only, and this is $system: install libtorch $torch yourself and export LIBTORCH=/its/folder")
    if [[ $system == Linux* ]] && has getconf; then
        libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc="another C library"
        libc=${libc#glibc }
        [[ $libc == [0-9]* ]] && (($(version_number "$libc") >= 2028)) ||
            missing+=("the torch wheel needs glibc 2.28 or newer, and this is ${libc}: use a newer system, or export LIBTORCH=/folder of a libtorch $torch built here")
    fi
}

tell_missing() {
    ((${#missing[@]} == 0)) || stop "${missing[@]}" "then run the same command again"
}

# --- which libtorch ---

# The release in a libtorch folder: of a wheel (version.py) or of an archive (build-version).
libtorch_version() {
    local line version=""
    if [[ -r $1/version.py ]]; then
        while IFS= read -r line; do
            if [[ $line == "__version__ = "* ]]; then
                version=${line#*= }
                version=${version//[\'\"]/}
            fi
        done <"$1/version.py"
    elif [[ -r $1/build-version ]]; then
        IFS= read -r version <"$1/build-version" || true
    fi
    printf '%s' "${version%%+*}"
}

check_own_libtorch() {
    local or="or \`unset LIBTORCH\` and run \`make setup\`" version
    [[ -n $LIBTORCH ]] || stop "LIBTORCH is exported but empty: name a folder in it, $or"
    [[ $LIBTORCH == /* ]] || stop "LIBTORCH=$LIBTORCH is not an absolute path: export one, $or"
    [[ -e $LIBTORCH/lib/libtorch_cpu.so || -e $LIBTORCH/lib/libtorch_cpu.dylib ]] ||
        stop "LIBTORCH=$LIBTORCH has no lib/libtorch_cpu: point it at a libtorch $torch folder, $or"
    [[ -e $LIBTORCH/include/torch/csrc/api/include/torch/torch.h ]] ||
        stop "LIBTORCH=$LIBTORCH has no headers (include/torch/csrc/api/include/torch/torch.h): point it at a complete libtorch $torch, $or"
    version=$(libtorch_version "$LIBTORCH")
    [[ $version == "$torch" ]] ||
        stop "LIBTORCH=$LIBTORCH holds libtorch ${version:-of an unknown version}, but $torch is needed: point it at a $torch folder, $or"
    say "libtorch $torch at $LIBTORCH (from LIBTORCH)"
}

gpu_answers() {
    local gpus
    has nvidia-smi || return 1
    # It can hang for long where the driver is broken.
    if has timeout; then gpus=$(timeout 30 nvidia-smi -L 2>/dev/null); else gpus=$(nvidia-smi -L 2>/dev/null); fi
    [[ $gpus == *"GPU "* ]]
}

# Sets `flavour` (slim or full), `asked` (yes, or auto) and `pins`.
choose_set() {
    local old_set="" old_asked=""
    if [[ -r $stamp ]]; then IFS='|' read -r _ old_set old_asked _ <"$stamp" || true; fi
    case ${CUDA:-} in
    1) flavour=full asked=yes ;;
    0) flavour=slim asked=yes ;;
    '')
        asked=${old_asked:-auto}
        if [[ $asked == yes || $old_set == full ]]; then
            flavour=$old_set # a full set serves a machine without a GPU too
        elif gpu_answers; then
            flavour=full
        else
            flavour=slim
        fi
        ;;
    *) stop "CUDA=$CUDA is neither 1 (full set with CUDA) nor 0 (slim set for the CPU)" ;;
    esac
    if [[ $flavour == full ]]; then pins=("${full_pins[@]}"); else pins=("${slim_pins[@]}"); fi
}

describe_set() {
    if [[ $flavour == full ]]; then echo "full set with CUDA"; else echo "slim set for the CPU"; fi
}

write_stamp() {
    printf '%s|%s|%s|%s\n' "$1" "$flavour" "$asked" "${pins[*]}" >"$stamp.tmp"
    mv -f -- "$stamp.tmp" "$stamp"
}

in_place() {
    local line=""
    [[ -r $stamp ]] && IFS= read -r line <"$stamp" || return 1
    [[ $line == "ready|$flavour|$asked|${pins[*]}" && -L .torch ]] || return 1
    [[ $(readlink .torch) == .venv/* && $(libtorch_version .torch) == "$torch" ]] || return 1
    [[ -e .torch/lib/libtorch_cpu.so ]] || return 1
    [[ $flavour == slim || -e .torch/lib/libtorch_cuda.so ]]
}

# --- the install ---

check_space() {
    local wanted=$1 free
    free=$(df -Pk . 2>/dev/null | awk 'NR == 2 { print $4 }')
    [[ $free =~ ^[0-9]+$ ]] || return 0 # a file system that does not say
    ((free >= wanted * 1024 * 1024)) ||
        stop "the disk of $PWD has $((free / 1024 / 1024)) GB free, but the $(describe_set) and the build need $wanted GB: free some space, or move the project"
}

# Isolated from PYTHONPATH and the user's site-packages; the wheel is half a gigabyte, and /tmp may be small.
pip() {
    mkdir -p .venv/tmp
    TMPDIR=$PWD/.venv/tmp PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 \
        "$venv_python" -I -m pip --no-input "$@"
}

pip_install() {
    pip install "$@" ||
        stop "pip could not install ${pins[*]}: the reason stands above, most often the network or a full disk; \`make setup\` goes on from here"
}

wheels() { "$venv_python" -I -B scripts/check_wheels.py "$@"; }

make_venv() {
    if [[ -e .venv ]]; then
        [[ -d .venv ]] || stop "$PWD/.venv is not a folder: move it away, the set-up makes its own"
        if [[ -x $venv_python ]] && "$venv_python" -I -c 'import pip' 2>/dev/null && wheels pip >/dev/null; then return; fi
        say "making .venv anew: the one that is there is not whole"
    else
        say "making .venv"
    fi
    local options=(--clear)
    [[ $has_ensurepip == yes ]] || options+=(--without-pip)
    "$python" -m venv "${options[@]}" .venv ||
        stop "$python could not make $PWD/.venv: the reason stands above; apt install python3-venv helps where ensurepip is named"
    if [[ $has_ensurepip == no ]]; then
        PIP_USER=0 "$python" -m pip --python "$venv_python" --no-input install --disable-pip-version-check pip ||
            stop "the pip of $python could not install itself into .venv: apt install python3-venv"
    fi
}

# Reads the names of installed wheels that belong to the full set only.
extra_wheels() {
    pip list --format=freeze 2>/dev/null | sed 's/[ =@].*//' | tr 'A-Z_' 'a-z-' |
        grep -E '^(triton|nvidia-.*|cuda-.*)$' | grep -vxF -e nvidia-cuda-runtime -e nvidia-cuda-cupti || true
}

install_slim() {
    local without=() lib extras=() name
    for lib in "${cuda_libs[@]}"; do without+=(--without "$lib"); done
    wheels --drop "${without[@]}" "${full_wheels[@]}" >/dev/null || true # pip cannot remove half a wheel
    while IFS= read -r name; do extras+=("$name"); done < <(extra_wheels)
    if ((${#extras[@]} > 0)); then
        say "removing ${#extras[@]} packages that only the full set needs"
        pip uninstall --quiet --yes "${extras[@]}" || stop "pip could not remove them: remove .venv and run \`make setup\` again"
    fi
    if ! wheels "${without[@]}" "${pins[@]}" >/dev/null; then
        check_space "$slim_gb"
        say "installing the $(describe_set): ${pins[*]} (530 MB to download)"
        pip_install --no-deps "${pins[@]}"
    fi
    local site faults
    site=$("$venv_python" -I -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    for lib in "${cuda_libs[@]}"; do
        # shellcheck disable=SC2086 # a pattern; where nothing matches, rm -f is content
        rm -f -- "$site"/$lib
    done
    faults=$(wheels "${without[@]}" "${pins[@]}") || stop "the install is not whole: ${faults//$'\n'/; }" "remove .venv and run \`make setup\` again"
}

install_full() {
    local faults
    # pip is always asked, because it alone knows the list; it downloads only what is missing.
    if ! wheels --drop "${full_wheels[@]}" >/dev/null; then check_space "$full_gb"; fi
    say "installing the $(describe_set): ${pins[*]} (about 2.7 GB to download where nothing is there)"
    pip_install "${pins[@]}"
    faults=$(wheels "${pins[@]}" "${full_wheels[@]}") || stop "the install is not whole: ${faults//$'\n'/; }" "remove .venv and run \`make setup\` again"
}

link_torch() {
    local folder
    folder=$("$venv_python" -I -c 'import sys; print(".venv/lib/python%d.%d/site-packages/torch" % sys.version_info[:2])')
    [[ ! -e .torch || -L .torch ]] || stop "$PWD/.torch is not a link: move it away, or export LIBTORCH=$PWD/.torch if it is a libtorch that you want to use"
    [[ -L .torch && $(readlink .torch) == "$folder" ]] || ln -sfn -- "$folder" .torch
    local version
    version=$(libtorch_version .torch)
    [[ $version == "$torch" ]] || stop "$folder holds torch ${version:-of an unknown version}, but $torch is needed: remove .venv and run \`make setup\` again"
}

# A torch-sys that was built beside the full set asks the linker for torch_cuda, and cargo does not
# see that the library went away.
forget_cuda_build() {
    local output profile
    for output in "${CARGO_TARGET_DIR:-target}"/{,*/}*/build/torch-sys-*/output; do
        grep -qsx 'cargo:rustc-link-lib=torch_cuda' "$output" || continue
        profile=${output%/build/*}
        say "torch-sys in $profile was built for the full set: it will be built again"
        rm -rf -- "$profile"/build/torch-sys-* "$profile"/.fingerprint/torch-sys-*
    done
}

warn_old_driver() {
    local driver
    has nvidia-smi || return 0
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null) || return 0
    driver=${driver%%.*}
    if [[ $driver =~ ^[0-9]+$ ]] && ((driver < 580)); then
        say "the NVIDIA driver is $driver, but CUDA 13 needs 580 or newer: until it is updated the CPU is used"
    fi
}

# --- all together ---

check_rust
check_compiler
if [[ -n ${LIBTORCH_USE_PYTORCH:-} ]]; then
    say "LIBTORCH_USE_PYTORCH is set, so torch-sys asks your Python for torch and not .torch: unset it unless you mean that"
fi
if [[ -n ${LIBTORCH+set} ]]; then
    tell_missing
    check_own_libtorch
    exit 0
fi

choose_set
if in_place; then
    tell_missing
    say "libtorch $torch ($(describe_set)) is in place"
    exit 0
fi
check_platform
check_python
tell_missing

# Two at once would spoil each other's .venv. The lock is on this file and ends with the process.
if has flock; then
    exec 9<scripts/setup.sh
    flock -n 9 || { say "another set-up is running here, waiting for it" && flock 9; }
    if in_place; then exit 0; fi
fi

trap 'printf "\nsetup: %s\n" "stopped before it was complete; \`make setup\` goes on from here" >&2; exit 130' INT TERM HUP
make_venv
rm -rf -- .venv/tmp # a killed pip leaves its downloads
write_stamp unfinished
if [[ $flavour == full ]]; then install_full; else install_slim; fi
rm -rf -- .venv/tmp
link_torch
if [[ $flavour == full ]]; then warn_old_driver; else forget_cuda_build; fi
write_stamp ready
say "libtorch $torch ($(describe_set)) is ready"
