"""A retriever for each of LangChain, LlamaIndex and Haystack: prompts, BM25, feedback, over any index or store.

    from retrieval_prompts.interop.frameworks.langchain import PromptRetriever
    retriever = PromptRetriever.over("INDEX", prompts="PROMPTS", k=5)

Nothing is imported here; each module imports its own framework.
"""
