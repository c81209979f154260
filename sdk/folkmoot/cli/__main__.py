"""`python -m folkmoot.cli`: the `folkmoot` command."""

from folkmoot.cli.main import main

main()
