"""Files of model hubs where files of this machine could be named: fetched once, kept in the hub's cache, and checked.

names.py reads the names, published.py knows those of published CoCa weights. huggingface.py and modelscope.py ask the
hubs, each through its own library, and clients.py picks one; repository.py has what they share, checksums.py compares
with what the hub says, configs.py finds the model config of a repository. Which of its files are the weights is known
further up, in weights/hub.py.
"""
