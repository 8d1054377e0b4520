"""Our prompts and vectors in the formats and interfaces of other tools, and theirs in ours.

    beir      BeirModel in beir's searches; FaissSearch, a search for any beir model
    mteb      IndexSearch in `mteb.evaluate`, which also takes `BiEncoder.as_sentence_transformer()` and exports
    trainer   sentence-transformers' trainer, losses, evaluator and mining of hard negatives
    adopt     document vectors that others made, checked, as an index
    stores    Qdrant, LanceDB, Milvus, pgvector: searched, read and filled where they are
    frameworks  retrievers for LangChain, LlamaIndex and Haystack
    peft      prompt folders and PEFT adapters
    onnx      an exported checkpoint as one ONNX file

Nothing is imported here: `from retrieval_prompts.interop.beir import FaissSearch`, for instance, imports beir.
"""
