from setuptools import setup
from setuptools.command.sdist import sdist


class SourceDistribution(sdist):
    """A source distribution with all that is needed to test it. A MANIFEST.in would say the same."""

    def make_distribution(self):
        self.filelist.recursive_include("tests", "*.py")
        self.filelist.recursive_include("examples", "*.py")
        self.filelist.recursive_include(".ci", "*")
        self.filelist.recursive_include(".github", "*")
        for name in (".ruff.toml", ".editorconfig", ".pre-commit-config.yaml"):
            self.filelist.include(name)
        super().make_distribution()


setup(cmdclass={"sdist": SourceDistribution})
