"""From a command line to a stored run: settings, the runner, the loop, checkpoints, the reader."""
