"""One frozen CLIP and one index of pictures behind HTTP, and the prompts of many over them.

What knows nothing of pictures is in `retrieval_prompts.serving`: limits, batches, tokens, the process.

    served      the prompts that are served, each checked against the model
    answering   the rows of a batch -> hits and probabilities
    asked       bodies of requests -> rows, or a refusal
    thumbnails  the pictures of hits, small
    web         the addresses

Nothing is imported here.
"""
