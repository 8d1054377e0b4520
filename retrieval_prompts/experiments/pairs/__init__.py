"""Queries and judgements that are made where people have given none: from documents, a log, or by a language model."""
