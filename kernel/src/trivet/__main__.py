"""``python -m trivet``: the same as ``trivet``."""

from trivet.cli import main

if __name__ == "__main__":
    main()
