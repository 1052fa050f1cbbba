"""`python -m svcreg` is the `svcreg` command."""

from svcreg.cli import main

if __name__ == "__main__":
    main()
