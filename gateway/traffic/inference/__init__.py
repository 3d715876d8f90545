"""Statistics that stay valid however often one looks: what is said of two samples holds at every moment at once.

Everything is a test by betting: a number that starts at 1 and is not expected to grow as long as a hypothesis is true.
That it ever reaches 1/alpha has then a probability of alpha at most (J. Ville, "Étude critique de la notion de
collectif", 1939). The hypotheses that were not refuted so are a confidence sequence. docs/experiments.md has every
formula.
"""
