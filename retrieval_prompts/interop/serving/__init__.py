"""One frozen model and one index behind HTTP, and the prompts of many over them.

    limits      what a request may ask for
    served      the prompts that are served by name: loaded and unloaded while it runs
    batching    requests -> batches; knows nothing of texts or HTTP
    encoding    texts, each with a prompt of its own -> vectors
    answering   the rows of a batch -> vectors and hits
    asked       bodies of requests -> rows, or a refusal
    embeddings  the form that OpenAI's clients speak
    guard       hosts, token, headers, counts: what holds for every request
    counters    what Prometheus reads
    web         the routes
    server      the process: port, signals, the end

Nothing is imported here.
"""
