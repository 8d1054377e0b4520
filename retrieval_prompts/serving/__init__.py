"""One frozen model and one index behind HTTP, and the prompts of many over them.

Whatever is served:

    limits       what a request may ask for
    by_name      prompts by name: loaded and unloaded while it runs
    batching     requests -> batches; knows nothing of texts or HTTP
    fields       the fields of a request's JSON, each checked
    guard        hosts, token, headers, counts: what holds for every request
    counters     what Prometheus reads
    application  bodies in, answers out, prompts, how it is, the page
    server       the process: port, signals, the end

Texts (pictures: `multimodal.serving`):

    prompt_set   several prompts over one model, one a query of a batch
    served       the prompts that are served, each checked against the index
    answering    the rows of a batch -> vectors and hits
    asked        bodies of requests -> rows, or a refusal
    embeddings   the form that OpenAI's clients speak
    web          the addresses

Nothing is imported here.
"""
