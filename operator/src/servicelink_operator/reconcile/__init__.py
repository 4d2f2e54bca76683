"""Observe, plan, apply, settle: the loop around the core."""
