"""`python -m tools.language_host [ENGINE-ADDRESS]`: the host, as the engine starts it."""

import sys

from tools.language_host.host import main

if __name__ == "__main__":
    main(sys.argv[1:])
