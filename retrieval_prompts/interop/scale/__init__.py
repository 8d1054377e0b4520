"""Encoding on many machines: documents in shards, an actor pool, vectors in Parquet."""
