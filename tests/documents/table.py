"""What is done with each command and block of the documents in `make test`: small models and few pictures."""

from tests.documents.walk import Section, check, recipe, run
from tests.documents.ways import (
    DEMO_CAPTION,
    FEW_SCENES,
    LINE,
    METRICS,
    ROW,
    all_commands,
    all_formats,
    built_pages,
    caption_by_graphs,
    captioned_demo,
    collection,
    convert_source,
    convert_usage,
    converted_caption,
    data_settings,
    deep_export,
    digits,
    each_command,
    each_task,
    evaluation_data,
    exported_model,
    finetune_data,
    library,
    listed_entries,
    message,
    other_config,
    other_family,
    published_name,
    published_weights,
    scale,
    shown_only,
    sidecar,
    starts,
    untrained_digits,
)

VIT = "docs/captioning.md: From a file that was fetched by hand"
COLLECTION = "docs/collections.md: Caption a collection"
DIGITS = "docs/train.md: An example in minutes: handwritten digits"
FINETUNE = "docs/finetune.md: Captions"
MESSAGES = ("Commands", "Weights", "Hubs", "Collections", "Devices", "Training")
TABLE = {
    "README.md: Install": Section(
        {
            "make demo": recipe(),
            "make check": recipe(),
            "make test": recipe(),
            "make docs": built_pages,
            "pip install .": check(),
        }
    ),
    "README.md: Caption a video": Section(
        {
            "mindone-coca demo": run(prints=DEMO_CAPTION),
            "mindone-coca models": run(prints=f"({LINE}|\n)+"),
            "mindone-coca caption": published_name,
            "VideoCaptioner": captioned_demo,
        },
        published_weights,
    ),
    "README.md: Measured": Section({"benchmarks/speed.py": check()}),
    "README.md: Documents": Section(
        {
            "pip install -r": check(),
            "coca_convert.py": converted_caption,
            "inference.py": check(),
            "train.py": check(),
        },
        finetune_data,
    ),
    "CONTRIBUTING.md: Contributing": Section(
        {
            "make check": recipe(),
            "make test": recipe(),
            "make docs": built_pages,
            "pre-commit": check(),
            "make_settings_page.py": check(),
        }
    ),
    "CONTRIBUTING.md: What tests hold": Section({"make test-slow": recipe(), "make mutate": recipe()}),
    "models/README.md: Figures": Section({"demo_figures.py": check(), "pytest": check()}),
    "models/README.md: Training": Section({"make train-demo": recipe(make_demo_data=FEW_SCENES)}),
    "benchmarks/README.md: Benchmarks": Section(
        {
            "benchmarks": check(),
            "benchmarks.against": check(),
            "benchmarks.forms": check(),
            "benchmarks.operators": check(),
            "benchmarks.training": check(),
            "benchmarks.held_out_tasks": check(),
            "benchmarks.finetune --size large": check(),
            "benchmarks.recipe": check(),
        }
    ),
    "benchmarks/README.md: ViT-L/14, `python benchmarks/speed.py`": Section({"speed.py": check()}),
    "benchmarks/README.md: Where a caption's time goes, `python -m benchmarks.operators --greedy --images 1`": Section(
        {"benchmarks.operators --greedy --images 1": check()}
    ),
    "benchmarks/README.md: Eight images from their tokens, `python -m benchmarks.against --other CHECKOUT`": Section(
        {
            "benchmarks.against --other CHECKOUT": check(),
            "benchmarks.forms": check(),
            "benchmarks.operators": check(),
        }
    ),
    "benchmarks/README.md: Training, `python -m benchmarks.training`": Section(
        {"benchmarks.training": check(), "benchmarks.forms": check()}
    ),
    "benchmarks/README.md: Memory at ViT-L/14 over batch sizes, `python -m benchmarks.memory --rounds 1`": Section(
        {"benchmarks.memory --rounds 1": check()}
    ),
    "benchmarks/README.md: Finetuning ViT-L/14, `python -m benchmarks.finetune --size large`": Section(
        {"benchmarks.finetune --size large": check(), "benchmarks.recipe": check()}
    ),
    "benchmarks/README.md: The converter at ViT-L/14 (2.55 GB), `python benchmarks/convert.py`": Section(
        {"convert.py": check()}
    ),
    "benchmarks/README.md: Retrieval metrics, `python benchmarks/retrieval.py`": Section({"retrieval.py": check()}),
    "assets/README.md: demo.mp4": Section({"make_demo_data.py": check()}),
    "examples/README.md: digits": Section({"make_digits.py": check(), "train.py": check()}, needs=(DIGITS,)),
    "examples/README.md: demo": Section(
        {"make_demo_data.py": check(), "demo_figures.py": check(), "make train-demo": recipe()},
        needs=("models/README.md: Training",),
    ),
    "docs/adding.md: Adding to it": Section({"make_settings_page.py": check()}),
    "docs/architecture.md: Architecture": Section(
        {"errors.py": shown_only, "mindone-coca COMMAND": each_command, "pip install": check()}
    ),
    "docs/captioning.md: By the name of published weights": Section(
        {"pip install -r": check(), "inference.py": published_name, "mindone-coca models": check()}, published_weights
    ),
    VIT: Section(
        {
            "pip install -r": check(),
            "coca_convert.py": converted_caption,
            "inference.py": run(prints=LINE),
            "pip install .": check(),
            "mindone-coca caption|train": all_commands,
        },
        published_weights,
    ),
    COLLECTION: Section(
        {
            "inference.py --save_features": all_formats,
            "inference.py --query": run(prints=f"({ROW})+"),
            "msrun": check(),
        },
        collection,
        needs=(VIT,),
    ),
    "docs/collections.md: Caption files beside pictures": Section(
        {"sidecar": sidecar("FOLDER"), "sidecar --output_dir": sidecar("OUT")}, needs=(COLLECTION,)
    ),
    "docs/convert.md: Convert weights": Section(
        {
            "--source SOURCE [--target": convert_usage,
            "--reverse": run(prints=rf"wrote open_clip/{LINE}"),
            "--list": listed_entries,
        },
        convert_source,
        needs=(VIT,),
    ),
    "docs/data.md: Nothing is lost in silence": Section({"rows read": shown_only}),
    "docs/data.md: Rules": Section({"make test-slow": recipe()}),
    "docs/deploy.md: MINDIR graphs": Section(
        {"export_mindir.py": deep_export, "lite_caption.py": caption_by_graphs}, exported_model, needs=(VIT,)
    ),
    "docs/deploy.md: MindSpore Lite on Ascend": Section(
        {"converter_lite": check()}, needs=("docs/deploy.md: MINDIR graphs",)
    ),
    "docs/evaluate.md: Evaluate": Section(
        {
            "zeroshot imagenet": run(prints=METRICS),
            "retrieval captions_val2014": run(prints=METRICS),
            "captioning captions_val2014": run(prints=METRICS),
        },
        evaluation_data,
    ),
    "docs/evaluate.md: retrieval": Section({"benchmarks/retrieval.py": check()}),
    "docs/evaluate.md: An example: the digits": Section(
        {
            "echo": run(),
            "zeroshot digits": run(prints=METRICS),
            "captioning digits": run(prints=METRICS),
            "make_demo_data.py": run("--held_out 5 --workers 1"),
            "retrieval scenes": check(),
        },
        needs=(DIGITS,),
    ),
    FINETUNE: Section(
        {"coca_convert.py": converted_caption, "python train.py": check(), "inference.py": check()}, finetune_data
    ),
    "docs/finetune.md: On one card": Section(
        {
            "--source open_clip_pytorch_model.bin": check(),
            "finetune_captioning_lora.yaml": check(),
            "inference.py": check(),
            "evaluate.py captions_val2014": check(),
            "--source models/coca_model.ckpt": check(),
            "make_style_data.py": run("--train 2 --held_out 2"),
            "finetune_style_demo.yaml": check(),
            "evaluate.py data/style": check(),
            "pytest": check(),
        },
        needs=(FINETUNE,),
    ),
    "docs/finetune.md: Less memory, with adapters or without": Section(
        {"benchmarks.finetune --size large": check()}, needs=(FINETUNE,)
    ),
    "docs/finetune.md: On several cards": Section({"msrun": check()}, needs=(FINETUNE,)),
    "docs/finetune.md: The recipes": Section({"make train-demo": recipe()}, needs=("models/README.md: Training",)),
    "docs/hub.md: Weights from a hub": Section({"mindone-coca models": check()}),
    "docs/library.md: As a library": Section({"VideoCaptioner": library}, needs=(VIT,)),
    "docs/parity.md: Parity with open_clip": Section({"make test-slow": recipe()}),
    "docs/quick_start.md: Install": Section({"pip install .": check()}),
    "docs/quick_start.md: A caption within a minute": Section({"mindone-coca demo": check()}),
    "docs/quick_start.md: Your own video": Section({"mindone-coca caption": published_name}, published_weights),
    "docs/quick_start.md: In Python": Section({"VideoCaptioner": captioned_demo}),
    "docs/quick_start.zh.md: 安装": Section({"pip install .": check()}),
    "docs/quick_start.zh.md: 一分钟内得到第一条描述": Section({"mindone-coca demo": check()}),
    "docs/quick_start.zh.md: 描述自己的视频": Section(
        {"mindone-coca caption": published_name, "mindone-coca models": check()}, published_weights
    ),
    "docs/quick_start.zh.md: 无法访问 Hugging Face 时": Section({"pip install": check()}),
    "docs/quick_start.zh.md: 在 Python 中使用": Section({"VideoCaptioner": captioned_demo}),
    "docs/quick_start.zh.md: 多卡": Section({"msrun": check()}, collection),
    "docs/reading.md: Formats": Section({"pip install": check()}),
    "docs/second_family.md: The other CoCa: coca-pytorch's architecture": Section(
        {"import ParallelCoCa": other_family}
    ),
    "docs/second_family.md: By a config": Section({"family: parallel_coca": other_config}),
    "docs/second_family.md: Conversion": Section(
        {
            "--source coca.pt": run(prints=rf"wrote models/coca_model\.ckpt{LINE}"),
            "--reverse": run(prints=rf"wrote back/coca_pytorch\.pt{LINE}"),
        },
        needs=("docs/second_family.md: By a config",),
    ),
    "docs/second_family.md: Training": Section({"train.py": check(), "pytest": check()}, needs=(DIGITS,)),
    "docs/settings.md: Settings of a training": Section({"make_settings_page.py": check()}),
    "docs/tasks.md: Downstream tasks": Section({"evaluate.py TASK": each_task}),
    "docs/tasks.md: Recipes": Section(
        {
            "make_digit_tasks.py": run("--count 10"),
            "train.py": check(),
            "evaluate.py": check(),
            "benchmarks.held_out_tasks": check(),
            "pytest": check(),
        },
        needs=(DIGITS,),
    ),
    "docs/train.md: Train": Section({"train.py": check(), "mindone-coca train": each_command}, needs=(FINETUNE,)),
    "docs/train.md: What there is to look at": Section(
        {"mindone-coca curves": check(RUN="finetune_captioning")}, needs=(FINETUNE,)
    ),
    DIGITS: Section(
        {
            "make_digits.py": run("--limit 5"),
            "train.py": untrained_digits,
            "inference.py": run(prints=LINE),
            "pytest": check(),
        },
        digits,
    ),
    **{f"docs/troubleshooting.md: {heading}": Section({"": message}) for heading in MESSAGES},
    "benchmarks/README.md: Workers on Ray, `python benchmarks/scale.py`": Section(
        {"scale.py": check(), "pytest": check()}
    ),
    "docs/scale.md: One machine with several devices": Section({"--ray": check(), "pip install": check()}, scale),
    "docs/scale.md: A Ray cluster": Section({"ray start": shown_only, "--ray auto": check()}, scale),
    "docs/scale.md: Kubernetes": Section({"ray job submit": shown_only}),
    "docs/scale.md: A scheduler's array job": Section({"--shard": check(), "--merge": check()}, scale),
    "docs/scale.md: Object storage": Section({"pip install": check(), "s3://BUCKET/shards": data_settings}),
    "docs/scale.md: Long lists": Section({"list.txt": check()}, scale),
    "docs/ascend.md: Versions": Section(
        {
            "make test": recipe(),
            "make test-versions": starts("tests/versions/test_versions.py"),
            "pip install": check(),
        }
    ),
    "docs/ascend.md: Install": Section(
        {
            "Ascend-hdk": shown_only,
            "make check-aarch64": starts("--platform manylinux_2_28_aarch64"),
            "make ascend-dryrun": starts("tools/check_device.py --device_target Ascend --compile_only"),
        }
    ),
    "docs/troubleshooting.md: Videos and pictures": Section({"": message, "mindone-coca[heic]": check()}),
    "docs/troubleshooting.md: Not from this package": Section({"pip install -r": check()}),
}
