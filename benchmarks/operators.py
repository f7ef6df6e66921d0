"""Which of MindSpore's operators the time of a caption goes to: python -m benchmarks.operators [--images 8] [--greedy]

Captions are made from image tokens, so encoding is not in it; the profiler itself makes small operators slower. Random
weights: captions run to their full length.
"""

import argparse
import csv
import os
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="coca_vit-l-14")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--greedy", action="store_true", help="in place of the default, beam search")
    arguments = parser.parse_args()

    from mindspore import Profiler

    from benchmarks.random_model import draw_images, draw_weights
    from mindone_coca import create_model
    from mindone_coca.config import find_config

    config = find_config(arguments.config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = create_model(config, draw_weights(config, folder))
        tokens = model.encode_image_tokens(draw_images(config, arguments.images))[1].asnumpy()
        kind = "top_k" if arguments.greedy else "beam_search"
        model.generate(None, image_embs=tokens, generation_type=kind)  # compiles
        profiler = Profiler(output_path=str(folder / "profile"), start_profile=False)
        profiler.start()
        model.generate(None, image_embs=tokens, generation_type=kind)
        profiler.stop()
        profiler.analyse()
        [details] = (folder / "profile").rglob("cpu_op_detail_info_*.csv")
        milliseconds: defaultdict[str, float] = defaultdict(float)
        calls: Counter[str] = Counter()
        with details.open(newline="") as file:
            for row in csv.DictReader(file):
                milliseconds[row["op_type"]] += float(row["op_total_time(ms)"])
                calls[row["op_type"]] += int(row["op_occurrences"])
    print(f"{sum(milliseconds.values()):.0f} ms in {calls.total()} operators")
    for operator, own in sorted(milliseconds.items(), key=lambda item: -item[1])[:12]:
        print(f"{operator:18} {own:8.0f} ms {calls[operator]:8} calls")


if __name__ == "__main__":
    main()
