"""Folders of pictures: with a folder for each class, or with caption files beside them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from mindone_coca.account import Account, number_of, some
from mindone_coca.data.samples import BadSample, PackedRows, Sample
from mindone_coca.data.text import decode
from mindone_coca.errors import InputError
from mindone_coca.media_files import is_hidden, is_media, walk
from mindone_coca.places import Place, UrlPath, content_of, place

_Found = tuple[list[str], Iterable[tuple[str, int]], Sequence[str]]  # classes; paths and labels; files in no class


class ClassFolders:
    """A folder with one folder per class, images or videos at any depth in it; the label is the folder's name."""

    def __init__(self, root: Place):
        self.account = Account(root, "file")
        self.classes, files, beside = self._find_there(root) if isinstance(root, UrlPath) else self._find(root)
        self._files = PackedRows(files)
        if pictures := sum(map(is_media, beside)):
            self.account.pass_over("in no class's folder", pictures)
        if not len(self._files):
            raise InputError(
                f"{root}: no images in folders in it; the layout is {root.name}/CLASS/IMAGE.jpg, or with a caption "
                "file beside each picture set caption_extension, such as .txt"
            )

    def _find(self, root: Path) -> _Found:
        entries = sorted(entry for entry in root.iterdir() if not is_hidden(entry.name))
        classes = [entry for entry in entries if entry.is_dir()]
        files = (
            (file, label)
            for label, folder in enumerate(classes)
            for file in sorted(map(Path, walk(str(folder), self.account)))
        )
        beside = [entry.name for entry in entries if not entry.is_dir()]
        return [folder.name for folder in classes], self._pictures(files), beside

    def _find_there(self, root: UrlPath) -> _Found:
        """The same behind a URL, where there are no folders but those that files have in their names."""
        start = root.url.rstrip("/") + "/"
        files: dict[str, list[str]] = {}
        beside = []
        for url in walk(start, self.account):
            folder, slash, _ = url.removeprefix(start).partition("/")
            if slash:
                files.setdefault(folder, []).append(url)
            else:
                beside.append(url)
        classes = sorted(files)
        pictures = ((UrlPath(url), label) for label, folder in enumerate(classes) for url in files[folder])
        return classes, self._pictures(pictures), beside

    def _pictures(self, files: Iterable[tuple[Place, int]]) -> Iterator[tuple[str, int]]:
        for file, label in files:
            if is_media(file.name) and (isinstance(file, UrlPath) or file.is_file()):
                self.account.read += 1
                yield str(content_of(file)), label
            else:
                self.account.pass_over_file(file.name)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        path, label = self._files[index]
        file = place(path)
        return Sample(str(file), [self.classes[label]], content_of(file))


class CaptionedFolder:
    """Pictures or videos in a folder, at any depth, each with a caption file of its name and `extension` beside it.

    Args:
        lines: each line of a caption file is a caption. Otherwise its whole text is one, on one line.
    """

    def __init__(self, root: Place, extension: str, lines: bool = False):
        self._extension, self._lines = "." + extension.lower().removeprefix("."), lines
        if is_media(f"x{self._extension}"):
            raise InputError(f"caption_extension: {extension} is that of pictures or videos; give one such as .txt")
        self.account = Account(root, "file")
        self._files = PackedRows(self._find(root))
        if not len(self._files) and not self.account.refused:
            raise InputError(f"{root}: no images with {self._extension} files beside them in it")

    def _find(self, root: Place) -> Iterator[tuple[str, str]]:
        pictures: list[str] = []
        captions: dict[str, str] = {}  # by the path without its suffix
        for file in walk(str(content_of(root)), self.account):
            if is_media(file):
                pictures.append(file)
            elif _suffix(file).lower() == self._extension:
                captions[file.removesuffix(_suffix(file))] = file
            else:
                self.account.pass_over_file(file)
        used: set[str] = set()
        for picture in sorted(pictures, key=_by_folders):
            caption = captions.get(picture.removesuffix(_suffix(picture)))
            if caption is None:
                self.account.refuse(f"{place(picture)} has no {self._extension} file beside it")
                continue
            used.add(caption)
            self.account.read += 1
            yield picture, caption
        alone = sorted(set(captions.values()) - used, key=_by_folders)
        if alone:
            listed = some((str(place(path)) for path in alone), len(alone))
            self.account.notes.append(f"no picture beside {number_of(len(alone), 'caption file')}: {listed}")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        picture, caption = map(place, self._files[index])
        try:
            text = decode(caption.read_bytes())
        except (OSError, UnicodeError, InputError) as error:
            raise BadSample(str(picture), f"its caption file {caption} cannot be read ({error})") from error
        lines = text.splitlines() if self._lines else [text]
        captions = [" ".join(line.split()) for line in lines]
        return Sample(str(picture), [line for line in captions if line], content_of(picture))


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix


def _by_folders(path: str) -> list[str]:
    """By which paths are sorted: folder by folder."""
    return path.split("/")
