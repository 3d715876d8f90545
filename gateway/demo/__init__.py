"""The demo model `shapes`: the script that trains it, its measurements, and the trained folders themselves.

A little program of its own (`python -m gateway.demo.train`): nothing else in the package imports it.
"""
