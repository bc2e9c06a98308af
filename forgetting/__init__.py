"""Learning from a moving stream of tasks, and what is forgotten on the way."""
