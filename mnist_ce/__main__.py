"""`python -m mnist_ce` is `mnist-ce`, for launchers such as torchrun. Kept by hand, no notebook."""

from mnist_ce.cli import main

if __name__ == "__main__":
    main(prog_name="mnist-ce")
