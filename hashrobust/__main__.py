"""`python -m hashrobust`."""

from hashrobust.cli import main

if __name__ == "__main__":
    main()
