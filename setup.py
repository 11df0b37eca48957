"""What a wheel holds: the package, and within it `configs/` and the experts that ship, which stand beside it here."""

from setuptools import find_packages, setup

BESIDE = {"exml_lightning.configs": "configs", "exml_lightning.checkpoints": "checkpoints"}
"""Where `exml_lightning/shipped.py` looks for them, and where they are in the repository."""

setup(
    packages=[*find_packages(include=["exml_lightning*"]), *BESIDE],
    package_dir=BESIDE,
    package_data={
        "exml_lightning": ["py.typed"],
        "exml_lightning.checkpoints": ["split_digits/run0/*.safetensors", "split_digits/run0/manifest.yaml"],
        "exml_lightning.configs": ["*.yaml", "*/*.yaml"],
        "exml_lightning.ex_model.export": ["card.md"],
        "exml_lightning.report.page": ["page.css", "page.html", "page.js"],
    },
    include_package_data=False,
)
