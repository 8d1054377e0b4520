"""One self-contained HTML page about an experiment: what changed, for which queries, and how sure that is."""
