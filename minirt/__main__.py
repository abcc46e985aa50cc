"""``python -m minirt`` is ``minirt``."""

from minirt.cli.main import main

main()
