"""The cloud companion: judges, tells, trains."""
