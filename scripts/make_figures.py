"""Make every figure from nothing, one script after the other, and say what changed.

    python scripts/make_figures.py [NAME …]     about forty minutes on two cores, or only these figures

Each script uses all cores for its seeds. The exit status is 1 if one of them failed.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main():
    wanted = sys.argv[1:]
    scripts = sorted(path for path in HERE.glob("fig_*.py") if not wanted or path.stem[4:] in wanted)
    unknown = set(wanted) - {path.stem[4:] for path in scripts}
    if unknown or "-h" in wanted or "--help" in wanted:
        known = ", ".join(sorted(path.stem[4:] for path in HERE.glob("fig_*.py")))
        sys.exit(f"{__doc__}\nfigures: {known}")
    failed = [path.name for path in scripts if subprocess.run([sys.executable, path]).returncode]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
