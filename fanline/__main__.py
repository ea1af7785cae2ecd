"""`python -m fanline`: the `fanline` command, also where no script of that name is on the PATH."""

from fanline.cli.app import main

if __name__ == "__main__":
    main()
