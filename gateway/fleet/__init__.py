"""The table of replicas: which addresses serve which version. Never knows who launched one."""
