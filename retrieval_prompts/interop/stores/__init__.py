"""Vector databases: their vectors stay where they are, and tuned queries, training and feedback prompts read them.

    qdrant:PATH#collection      or qdrant:http://host:6333#collection    $QDRANT_API_KEY
    lancedb:PATH#table
    milvus:PATH.db#collection   or milvus:http://host:19530#collection   $MILVUS_TOKEN
    pgvector:postgresql://user@host/database#table                       $PGPASSWORD

`vectors.store.Store` is what each of them is; one of your own goes to `adopt` as it is. Their clients are imported
when a store is opened.
"""
