"""Checkpoints: reading, writing, converting, and loading into a model.

source.py opens any kind of weights file, told by its content (formats/kinds.py); safetensors_file.py, torch_file.py and
mindspore_file.py know the formats. state_dict.py finds the weights in a torch checkpoint, entry_names.py takes off
what wrappers put before names.
names.py maps open_clip's names to ours, shapes.py knows what a config expects, infer.py finds the config of a file.
convert.py plans and writes a conversion, verify.py proves it. load.py fills a model, and alone needs MindSpore (with
verify.py), so that converting starts at once and takes little memory.
"""
