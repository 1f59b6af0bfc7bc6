"""The settings of a site without the package: everything else is the same."""

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.benchmarks.stock"
