"""Build the package from the metadata in settings.ini."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser()
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license_expression=settings["license"],
    license_files=settings["license_files"].split(),
    project_urls=dict(line.split(" = ") for line in settings["project_urls"].strip().splitlines()),
    classifiers=settings["classifiers"].strip().splitlines(),
    keywords=settings["keywords"],
    python_requires=f">={settings['min_python']}",
    packages=[settings["lib_name"]],
    package_data={settings["lib_name"]: ["mnist.npz", "mnist.npz.license", "py.typed"]},
    install_requires=settings["requirements"].split(),
    extras_require={"dev": settings["dev_requirements"].split()},
    entry_points={
        "console_scripts": settings["console_scripts"].split(),
        "nbdev": ["mnist_ce=mnist_ce._modidx:d"],
    },
)
