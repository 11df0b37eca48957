"""``python -m exml_lightning`` is ``exml``."""

from exml_lightning.cli.main import main

main()
