"""Folders of pictures: with a folder for each class, or with caption files beside them."""

from collections.abc import Iterator
from pathlib import Path

from mindone_coca.account import Account, number_of, some
from mindone_coca.data.samples import BadSample, PackedRows, Sample
from mindone_coca.data.text import decode
from mindone_coca.errors import InputError
from mindone_coca.media_files import is_hidden, is_media, walk


class ClassFolders:
    """A folder with one folder per class, images or videos at any depth in it; the label is the folder's name."""

    def __init__(self, root: Path):
        self.account = Account(root, "file")
        entries = sorted(entry for entry in root.iterdir() if not is_hidden(entry.name))
        classes = [entry for entry in entries if entry.is_dir()]
        self.classes = [folder.name for folder in classes]
        self._files = PackedRows(self._find(classes))
        beside = sum(is_media(entry.name) for entry in entries if not entry.is_dir())
        if beside:
            self.account.pass_over("in no class's folder", beside)
        if not len(self._files):
            raise InputError(
                f"{root}: no images in folders in it; the layout is {root.name}/CLASS/IMAGE.jpg, or with a caption "
                "file beside each picture set caption_extension, such as .txt"
            )

    def _find(self, classes: list[Path]) -> Iterator[tuple[str, int]]:
        for label, folder in enumerate(classes):
            for file in sorted(map(Path, walk(str(folder), self.account))):
                if is_media(file.name) and file.is_file():
                    self.account.read += 1
                    yield str(file), label
                else:
                    self.account.pass_over_file(file.name)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        file, label = self._files[index]
        return Sample(file, [self.classes[label]], Path(file))


class CaptionedFolder:
    """Pictures or videos in a folder, at any depth, each with a caption file of its name and `extension` beside it.

    Args:
        lines: each line of a caption file is a caption. Otherwise its whole text is one, on one line.
    """

    def __init__(self, root: Path, extension: str, lines: bool = False):
        self._extension, self._lines = "." + extension.lower().removeprefix("."), lines
        if is_media(f"x{self._extension}"):
            raise InputError(f"caption_extension: {extension} is that of pictures or videos; give one such as .txt")
        self.account = Account(root, "file")
        self._files = PackedRows(self._find(root))
        if not len(self._files) and not self.account.refused:
            raise InputError(f"{root}: no images with {self._extension} files beside them in it")

    def _find(self, root: Path) -> Iterator[tuple[str, str]]:
        pictures: list[Path] = []
        captions: dict[Path, Path] = {}  # by the path without its suffix
        for file in map(Path, walk(str(root), self.account)):
            if is_media(file.name):
                pictures.append(file)
            elif file.suffix.lower() == self._extension:
                captions[file.with_suffix("")] = file
            else:
                self.account.pass_over_file(file.name)
        used: set[Path] = set()
        for picture in sorted(pictures):
            caption = captions.get(picture.with_suffix(""))
            if caption is None:
                self.account.refuse(f"{picture} has no {self._extension} file beside it")
                continue
            used.add(caption)
            self.account.read += 1
            yield str(picture), str(caption)
        alone = sorted(set(captions.values()) - used)
        if alone:
            listed = some(map(str, alone), len(alone))
            self.account.notes.append(f"no picture beside {number_of(len(alone), 'caption file')}: {listed}")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        picture, caption = self._files[index]
        try:
            text = decode(Path(caption).read_bytes())
        except (OSError, UnicodeError) as error:
            raise BadSample(picture, f"its caption file {caption} cannot be read ({error})") from error
        lines = text.splitlines() if self._lines else [text]
        captions = [" ".join(line.split()) for line in lines]
        return Sample(picture, [line for line in captions if line], Path(picture))
