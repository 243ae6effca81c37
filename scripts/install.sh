#!/usr/bin/env bash
# Puts af2 where PATH finds it, with its completions for bash, zsh and fish: `make install PREFIX=…` runs this after the
# build. libtorch stays where it is; a starter looks for it first and says so where it has moved.
#
#   PREFIX=/usr/local   where to
#   DESTDIR=…           written before PREFIX, for who makes a package
#   scripts/install.sh --remove takes it away again
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

prefix=${PREFIX:-/usr/local}
[[ $prefix == /* ]] || {
    echo "install: PREFIX=$prefix is not an absolute path" >&2
    exit 1
}
prefix=${prefix%/}
root=${DESTDIR:-}$prefix
program=$root/lib/af2/af2
starter=$root/bin/af2
bash_file=$root/share/bash-completion/completions/af2
zsh_file=$root/share/zsh/site-functions/_af2
fish_file=$root/share/fish/vendor_completions.d/af2.fish

if [[ ${1:-} == --remove ]]; then
    rm -f -- "$program" "$starter" "$bash_file" "$zsh_file" "$fish_file"
    rmdir -- "$root/lib/af2" 2>/dev/null || true
    echo "install: removed from $root"
    exit 0
fi

built=${CARGO_TARGET_DIR:-target}/release/af2
[[ -x $built ]] || {
    echo "install: $built is not there: run \`make build\`" >&2
    exit 1
}
lib=${LIBTORCH:-$PWD/.torch}/lib
[[ -e $lib/libtorch_cpu.so ]] || {
    echo "install: no libtorch at $lib: run \`make setup\`" >&2
    exit 1
}

# Written beside its place and moved there: who starts af2 meanwhile gets the one before.
place() { # FILE MODE, its content on stdin
    mkdir -p -- "$(dirname -- "$1")" || exit 1
    local part=$1.part$$
    trap 'rm -f -- "$part"' EXIT
    cat >"$part"
    chmod "$2" "$part"
    mv -f -- "$part" "$1"
    trap - EXIT
}

place "$program" 755 <"$built"
{
    printf '#!/bin/sh\n# Starts af2. It was built with the libtorch in this folder; one in LD_LIBRARY_PATH is used instead.\n'
    printf 'lib=%q\n' "$lib"
    cat <<'STARTER'
found=
IFS=:
for folder in "$lib" ${LD_LIBRARY_PATH:-}; do
    if [ -e "$folder/libtorch_cpu.so" ]; then found=yes; fi
done
unset IFS
if [ -z "$found" ]; then
    echo "af2: the libtorch that it was built with is no longer at $lib" >&2
    echo "  hint: \`make install\` in its clone finds it again; or export LD_LIBRARY_PATH=/folder/of/torch/lib (libtorch 2.11.0)" >&2
    exit 127
fi
STARTER
    printf 'exec %q "$@"\n' "$prefix/lib/af2/af2"
} | place "$starter" 755
"$built" completions bash | place "$bash_file" 644
"$built" completions zsh | place "$zsh_file" 644
"$built" completions fish | place "$fish_file" 644

echo "install: $starter, which uses libtorch at $lib"
case :$PATH: in
*:$prefix/bin:*) ;;
*) echo "install: $prefix/bin is not in PATH: add it there" ;;
esac
