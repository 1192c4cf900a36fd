"""Build the package from the metadata in settings.ini; its addresses stand in pyproject.toml."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser()
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]


def for_an_index(text, repository, version):
    """The README for a package index, where its relative links lead nowhere.

    They become addresses in the repository, at the tag of this version. Without a repository a link
    is left as its text and a picture as its words, because a broken link tells a reader nothing.
    """
    if not repository:
        text = re.sub(r"!\[([^]]+)\]\((?!https?:)[^)]+\)", r"*\1*", text)
        return re.sub(r"\[([^]]+)\]\((?!https?:|#)[^)]+\)", r"\1", text)
    pictures = f"https://raw.githubusercontent.com/{repository}/v{version}/"
    pages = f"https://github.com/{repository}/blob/v{version}/"
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\1{pictures}", text)
    return re.sub(r"(\]\()(?!https?:|#)", rf"\1{pages}", text)


readme = (here / "README.md").read_text(encoding="utf-8")
setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=for_an_index(readme, settings["repository"], settings["version"]),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license_expression=settings["license"],
    license_files=settings["license_files"].split(),
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
