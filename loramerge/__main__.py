"""`python -m loramerge`."""

from loramerge.cli.main import main

main()
