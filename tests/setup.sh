#!/usr/bin/env bash
# Tests of scripts/setup.sh, in a copy under a temporary folder, without network: small stand-ins for
# the wheels come from a local folder. `make test` runs this; about half a minute.
# shellcheck disable=SC2016 # the scripts of the stand-in tools expand when they run
set -euo pipefail
project=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
unset LIBTORCH LIBTORCH_USE_PYTORCH CUDA PYTHON CXX VIRTUAL_ENV MAKEFLAGS MFLAGS

if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    echo "tests/setup.sh: skipped, python3 with venv and ensurepip is needed (LIBTORCH serves the build)"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
root="$work/a project" # the set-up must bear spaces
mkdir -p "$root" "$work/elsewhere" "$work/empty"
cp -r "$project/scripts" "$project/Cargo.toml" "$project/Makefile" "$root/"
rust=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' "$root/Cargo.toml")

# Tools by their true place: a version manager's shims do not work from a link.
bin="$work/bin"
mkdir "$bin"
for tool in bash sh env cat mkdir rm mv ln readlink dirname sed awk grep tr df uname getconf flock timeout make; do
    path=$(command -v "$tool") && ln -s "$path" "$bin/$tool"
done
real_python=$(python3 -c 'import sys; print(sys.executable)')
fake() { # NAME, lines of sh on stdin
    { echo '#!/bin/sh' && cat; } >"$bin/$1"
    chmod +x "$bin/$1"
}
tools() { # puts every prerequisite back
    for tool in cargo rustc; do fake "$tool" <<<"echo '$tool $rust.0 (abc 2025-01-01)'"; done
    for tool in c++ cc; do fake "$tool" <<<'exit 0'; done
    fake python3 <<<"exec '$real_python' \"\$@\""
    rm -f "$bin/nvidia-smi"
}
tools

# The stand-ins: the same names, versions and kinds of files as the real wheels.
"$real_python" - "$work/wheels" <<'PYTHON'
import base64, hashlib, pathlib, sys, zipfile

out = pathlib.Path(sys.argv[1])
out.mkdir()

def wheel(name, version, files, needs=()):
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = dict(files)
    files[f"{info}/METADATA"] = meta + "".join(f"Requires-Dist: {n}\n" for n in needs)
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n"
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(out / f"{info.removesuffix('.dist-info')}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)

libs = "torch_cpu torch c10 torch_cuda torch_cuda_linalg c10_cuda torch_nvshmem caffe2_nvrtc".split()
torch = {f"torch/lib/lib{lib}.so": lib for lib in libs}
torch["torch/version.py"] = "__all__ = ['__version__']\n__version__ = '2.11.0+cu130'\n"
torch["torch/include/torch/csrc/api/include/torch/torch.h"] = "#pragma once\n"
cuda = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85", "nvidia-cudnn-cu13"]
wheel("torch", "2.11.0", torch, cuda)
wheel("nvidia-cuda-runtime", "13.0.96", {"nvidia/cu13/lib/libcudart.so.13": "cudart"})
wheel("nvidia-cuda-cupti", "13.0.85", {"nvidia/cu13/lib/libcupti.so.13": "cupti"})
wheel("nvidia-cuda-crt", "13.0.88", {"nvidia/cu13/include/crt/host_defines.h": "crt"})
wheel("nvidia-cuda-cccl", "13.0.85", {"nvidia/cu13/include/cccl/cuda/std/version": "cccl"})
wheel("nvidia-cudnn-cu13", "9.19.0.56", {"nvidia/cudnn/lib/libcudnn.so.9": "cudnn"})
PYTHON

# --- the checks ---

name="" out="" status=0
setup() { # [VAR=value...]: runs the set-up, from another folder, with the local wheels only
    status=0
    out=$(cd "$work/elsewhere" && env PATH="$bin" PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_NO_CACHE_DIR=1 \
        PIP_FIND_LINKS="$work/wheels" "$@" "$root/scripts/setup.sh" 2>&1) || status=$?
}
offline() { setup PIP_FIND_LINKS="$work/empty" "$@"; }
begin() { name=$1; }
fail() {
    printf 'FAILED: %s: %s\n--- status %s, output:\n%s\n' "$name" "$1" "$status" "$out" >&2
    exit 1
}
passes() { [[ $status -eq 0 ]] || fail "it should succeed"; }
refuses() { [[ $status -ne 0 ]] || fail "it should refuse"; }
says() { [[ $out == *"$1"* ]] || fail "it should say: $1"; }
lines() { [[ $(grep -c '' <<<"$out") -eq $1 ]] || fail "it should say $1 lines"; }
is_slim() {
    [[ -f "$root/.torch/lib/libtorch_cpu.so" && -f "$root/.torch/version.py" ]] || fail "libtorch is not there"
    local lib
    for lib in torch_cuda torch_cuda_linalg c10_cuda torch_nvshmem caffe2_nvrtc; do
        [[ ! -e "$root/.torch/lib/lib$lib.so" ]] || fail "lib$lib.so should be removed"
    done
}
is_full() { [[ -f "$root/.torch/lib/libtorch_cuda.so" && -f "$site/nvidia/cudnn/lib/libcudnn.so.9" ]] || fail "the CUDA libraries are not there"; }

begin "all missing tools are told at once"
rm "$bin"/{cargo,rustc,c++,cc,make,python3}
offline HOME=/nonexistent CARGO_HOME=/nonexistent
refuses
for tool in cargo rustc g++ make python3; do says "$tool is missing: "; done
lines 6
[[ ! -e "$root/.venv" ]] || fail "nothing should be made"
ln -s "$(command -v make)" "$bin/make"

begin "tools that are too old"
tools
fake rustc <<<'echo "rustc 1.63.0 (abc 2022-08-08)"'
fake python3 <<<'case $* in *version_info*) echo "3 9" ;; esac'
offline
refuses
says "rustc 1.63.0 is too old, $rust or newer is needed: "
says "python3 is 3.9, but torch 2.11.0 needs Python 3.10 to 3.14: "
lines 3

begin "a compiler named by CXX that is not there"
tools
offline CXX=clang++-99
refuses
says "CXX names, clang++-99, is missing"

begin "Python without ensurepip and pip"
fake python3 <<EOF2
case \$* in *find_spec*) echo venv ;; *) exec '$real_python' "\$@" ;; esac
EOF2
offline
refuses
says "python3 has neither ensurepip nor pip (22.3 or newer): apt install python3-venv"

begin "Python without venv"
fake python3 <<EOF2
case \$* in *find_spec*) echo ensurepip pip ;; *) exec '$real_python' "\$@" ;; esac
EOF2
offline
refuses
says "the venv module of python3 is missing: apt install python3-venv"

begin "another platform"
tools
mv "$bin/uname" "$work/uname"
fake uname <<<'case $1 in -s) echo Linux ;; *) echo aarch64 ;; esac'
offline
refuses
says "Linux x86_64 only, and this is Linux aarch64: install libtorch 2.11.0 yourself and export LIBTORCH"
mv "$work/uname" "$bin/uname"

begin "a wrong LIBTORCH"
mkdir -p "$work/own/lib" "$work/own/include/torch/csrc/api/include/torch"
offline LIBTORCH=relative/folder
refuses && says "is not an absolute path"
offline LIBTORCH=
refuses && says "exported but empty"
offline LIBTORCH="$work/empty"
refuses && says "has no lib/libtorch_cpu"
touch "$work/own/lib/libtorch_cpu.so"
offline LIBTORCH="$work/own"
refuses && says "has no headers"
touch "$work/own/include/torch/csrc/api/include/torch/torch.h"
echo "2.7.1+cpu" >"$work/own/build-version"
offline LIBTORCH="$work/own"
refuses && says "holds libtorch 2.7.1, but 2.11.0 is needed"

begin "a right LIBTORCH needs neither Python nor .venv"
echo "2.11.0+cpu" >"$work/own/build-version"
rm "$bin/python3"
offline LIBTORCH="$work/own"
passes
[[ ! -e "$root/.venv" && ! -e "$root/.torch" ]] || fail "nothing should be made"
tools

begin "no network"
offline
refuses
says "pip could not install torch==2.11.0"

begin "a full disk"
mv "$bin/df" "$work/df"
fake df <<<'echo Filesystem; echo "/dev/x 100000000 99000000 1000000 99% /"'
setup
refuses
says "GB free, but the slim set for the CPU and the build need 3 GB"
mv "$work/df" "$bin/df"

begin "the slim set, after what failed before"
setup
passes && is_slim
link=$(readlink "$root/.torch")
[[ $link == .venv/lib/python3.*/site-packages/torch ]] || fail "the link should be relative: $link"
site="$root/${link%/torch}"

begin "a second run needs no network and no pip"
touch "$work/before"
offline
passes && says "is in place"
lines 1
[[ -z $(find "$root" -newer "$work/before") ]] || fail "it should write nothing"

begin "an install made by hand is taken as it is"
rm "$root/.venv/af2-libtorch" "$root/.torch"
offline
passes && is_slim

begin "an install that was cut off is repaired"
rm "$root/.venv/af2-libtorch" "$site"/torch-2.11.0.dist-info/RECORD "$site"/nvidia/cu13/lib/libcupti.so.13
setup
passes && is_slim
[[ -f "$site/nvidia/cu13/lib/libcupti.so.13" ]] || fail "libcupti should be back"

begin "a damaged libtorch is repaired"
rm "$site/torch/lib/libtorch_cpu.so"
setup
passes && is_slim

begin "a nvidia-smi without a GPU changes nothing"
fake nvidia-smi <<<'echo "NVIDIA-SMI has failed"; exit 9'
offline
passes && says "is in place"

begin "a GPU asks for the full set"
fake nvidia-smi <<<'case $1 in -L) echo "GPU 0: NVIDIA H100 (UUID: GPU-1)" ;; *) echo 535.104.05 ;; esac'
setup
passes && is_full
says "driver is 535, but CUDA 13 needs 580"

begin "the full set stays where the GPU is gone"
rm "$bin/nvidia-smi"
offline
passes && is_full && says "is in place"

begin "CUDA=0 goes back, and torch-sys is built again"
mkdir -p "$root"/target/release/{build,.fingerprint}/{torch-sys,other}-1
echo 'cargo:rustc-link-lib=torch_cuda' >"$root/target/release/build/torch-sys-1/output"
offline CUDA=0
passes && is_slim
[[ ! -e "$site/nvidia/cudnn/lib/libcudnn.so.9" ]] || fail "cudnn should be removed"
[[ ! -e "$root/target/release/build/torch-sys-1" && ! -e "$root/target/release/.fingerprint/torch-sys-1" ]] || fail "torch-sys should be forgotten"
[[ -e "$root/target/release/build/other-1" ]] || fail "other crates should stay"

begin "what was asked for is remembered"
fake nvidia-smi <<<'echo "GPU 0: NVIDIA H100 (UUID: GPU-1)"'
offline
passes && is_slim && says "is in place"
rm "$bin/nvidia-smi"

begin "CUDA=1 by hand"
setup CUDA=1
passes && is_full
offline CUDA=2
refuses && says "CUDA=2 is neither"

begin "a .torch that is no link is left alone"
rm "$root/.torch"
mkdir "$root/.torch"
offline
refuses && says ".torch is not a link"
rmdir "$root/.torch"

begin "a .venv that is not whole is made anew, by pip where ensurepip is missing"
rm -rf "$site/pip"
"$real_python" -m pip --version >/dev/null 2>&1 && has_pip=yes || has_pip=no
if [[ $has_pip == yes ]]; then
    # pip must come from somewhere: the wheel that ensurepip carries.
    find "$("$real_python" -c 'import ensurepip, os; print(os.path.dirname(ensurepip.__file__))')" /usr/share/python-wheels \
        -name 'pip-*.whl' -exec cp {} "$work/wheels/" \; 2>/dev/null || true
    fake python3 <<EOF2
case \$* in *find_spec*) echo venv pip ;; *) exec '$real_python' "\$@" ;; esac
EOF2
fi
setup CUDA=0
passes && is_slim
says "making .venv anew"

begin "make works from elsewhere and where the path holds spaces"
tools
out=$(cd "$work/elsewhere" && PATH="$bin" "$bin/make" -f "$root/Makefile" setup 2>&1) || status=$?
passes && says "is in place"
out=$(cd "$work/elsewhere" && PATH="$bin" "$bin/make" -f "$root/Makefile" 2>&1) || status=$?
passes && says "make demo"

echo "tests/setup.sh: all passed"
