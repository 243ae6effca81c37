"""Says which of the named wheels are not whole in the environment of this interpreter.

    check_wheels.py [--without GLOB]... [--drop] NAME[==VERSION]...

With a VERSION the wheel must be there and whole; a NAME alone, which may be a pattern such as
`nvidia-*`, must be whole where it is there. One line a fault; the exit status is 1 where there is one.

pip writes a wheel's RECORD last, so a wheel whose install was cut off has none, and one that was
damaged later disagrees with the sizes in it. `--without` names files that may be absent. `--drop`
removes the faulty entries, because pip takes a half-installed wheel for an installed one.
"""

import argparse
import csv
import re
import shutil
import sys
import sysconfig
from fnmatch import fnmatch
from pathlib import Path

SITE = Path(sysconfig.get_path("platlib"))


def installed():
    """The `.dist-info` folders as (normalised name, version, folder)."""
    for info in sorted(SITE.glob("*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        yield re.sub(r"[-_.]+", "-", name).lower(), version, info


def fault(info, without):
    """What is wrong with an installed wheel, or None."""
    try:
        with open(info / "RECORD", newline="", encoding="utf-8") as record:
            for path, _hash, size in csv.reader(record):
                # Entries without a size are bytecode and the RECORD itself.
                if not size or any(fnmatch(path, pattern) for pattern in without):
                    continue
                found = (SITE / path).stat().st_size
                if found != int(size):
                    return f"{path} has {found} bytes, not {size}"
    except FileNotFoundError as error:
        if Path(error.filename).name == "RECORD":
            return "its install did not finish"
        return f"{error.filename} is missing"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def drop(name, info):
    shutil.rmtree(info)
    if name == "torch":  # its files could be of another version: pip would only lay new ones over them
        for folder in ("torch", "torchgen", "functorch"):
            shutil.rmtree(SITE / folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--drop", action="store_true")
    parser.add_argument("names", nargs="+")
    args = parser.parse_args()

    faults = []
    present = list(installed())
    for wanted in args.names:
        pattern, _, version = wanted.partition("==")
        matches = [entry for entry in present if fnmatch(entry[0], pattern)]
        if version and not matches:
            faults.append(f"{wanted} is not installed")
        for name, found, info in matches:
            wrong = fault(info, args.without)
            if wrong and args.drop:
                drop(name, info)
            if wrong:
                faults.append(f"{name} {found}: {wrong}")
            elif version and found != version:
                faults.append(f"{name} {found} is installed, not {version}")
    print("\n".join(faults), end="\n" if faults else "")
    sys.exit(1 if faults else 0)


main()
