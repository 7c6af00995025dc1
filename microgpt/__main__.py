"""`python -m microgpt`, the same as the command `microgpt`."""

from microgpt.cli import main

if __name__ == "__main__":
    main(prog_name="microgpt")
