"""`python -m lit_mbldm`: the third name of the command."""

from lit_mbldm.cli import main

if __name__ == "__main__":
    main()
