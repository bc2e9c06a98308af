"""Stored runs to comparisons, figures, tables and the report."""

import os

from forgetting.errors import UserError

os.environ["MPLBACKEND"] = "Agg"  # files alone; the user's may not even be there
try:
    import matplotlib  # noqa: F401
except (ValueError, OSError) as error:  # it reads the user's settings
    raise UserError(f"matplotlib cannot read your matplotlibrc: {error}; mend that file") from None
