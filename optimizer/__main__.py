"""`python -m optimizer MODEL ...`: the same as `inflight optimize MODEL ...`."""

import sys

from server.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["optimize", *sys.argv[1:]]))
