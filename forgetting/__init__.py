"""Learning from a moving stream of tasks, and what is forgotten on the way."""

import os

# scikit-learn trains probes on a GPU's tensors only if SciPy was told so before its first import.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
