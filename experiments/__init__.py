"""Entry points, the runner, stored runs and figures."""

import warnings
from pathlib import Path

# Sacred 0.8.7 still imports pkg_resources; setuptools says so to every user.
warnings.filterwarnings("ignore", message=".*pkg_resources is deprecated")

PROJECT = Path(__file__).resolve().parents[1]
