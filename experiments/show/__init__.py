"""Stored runs to comparisons, figures, tables and the report."""
