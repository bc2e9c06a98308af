"""Plans of many runs, and the engine that brings them to their end."""
