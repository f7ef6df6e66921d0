"""The lists of the downstream tasks: rows of pictures or a video, a sentence where the task has one, and a label."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mindone_coca.account import Account
from mindone_coca.data.folders import ClassFolders
from mindone_coca.data.json_lists import jsonl_rows
from mindone_coca.data.labels import known_label, read_label_names
from mindone_coca.data.lists import file_sample, require_files
from mindone_coca.data.samples import PackedRows, Sample, existing_file, existing_folder
from mindone_coca.data.settings import DataConfig, SourceConfig
from mindone_coca.data.sources import refuse_settings, source_format
from mindone_coca.data.tables import ListRow, table_rows
from mindone_coca.data.text import as_text
from mindone_coca.errors import InputError
from mindone_coca.places import Place, place
from mindone_coca.tasks.spec import TASKS

PackedRow = tuple[list[str], str, str, list[str]]  # paths, sentence, label, all answers


@dataclass(frozen=True)
class TaskSample:
    """What a task asks, and the answer."""

    pictures: list[Sample]  # one image or video; two images for nlvr2
    sentence: str  # question or statement; empty where the task has none
    label: str
    answers: list[str]  # all that were given to a question, commonest first; else the label alone


class TaskRows:
    """The samples of one list or folder, as rows in one block of memory."""

    def __init__(self, rows: Iterable[PackedRow], root: Place, list_file: Place, account: Account):
        self.list_file, self._root, self.account = list_file, root, account
        self.label_counts: Counter[str] = Counter()  # how often each label occurs
        self._rows = PackedRows(self._counted(rows))
        if len(self) or not account.refused:  # else the account says why there are no rows
            require_files((paths[0] for paths, *_ in self._rows.head(10)), root, list_file)

    def _counted(self, rows: Iterable[PackedRow]) -> Iterator[PackedRow]:
        for row in rows:
            self.label_counts[row[2]] += 1
            self.account.read += 1
            yield row

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TaskSample:
        paths, sentence, label, answers = self._rows[index]
        return TaskSample([file_sample(self._root, path, []) for path in paths], sentence, label, answers)


@dataclass(frozen=True)
class _Columns:
    """Names of a list's columns, each with the setting that asks for it."""

    pictures: dict[str, str]
    sentence: tuple[str, str] | None
    label: tuple[str, str]

    @classmethod
    def of(cls, task: str, config: SourceConfig, data: DataConfig) -> "_Columns":
        needed_by, spec = f"task {task}", TASKS[task]
        pictures = dict.fromkeys(spec.pictures, needed_by) or {config.image_key or data.image_key: "image_key"}
        sentence = None
        if spec.sentence:
            sentence = (config.caption_key, "caption_key") if config.caption_key else (spec.sentence, needed_by)
        label = (config.label_key, "label_key") if config.label_key else (spec.label, needed_by)
        return cls(pictures, sentence, label)


def open_task_rows(config: SourceConfig, data: DataConfig, task: str, where: str) -> TaskRows:
    """Open one source of a task; `where` names its setting. Raises InputError naming file or setting, and the mend."""
    rows = _open_rows(config, data, task, where)
    rows.account.report(data.max_bad_share)
    return rows


def _open_rows(config: SourceConfig, data: DataConfig, task: str, where: str) -> TaskRows:
    kind = source_format(config)
    takes_folders = TASKS[task].class_folders
    if kind not in ("csv", "tsv", "jsonl", "json") and not (kind == "folder" and takes_folders):
        known = "csv, tsv, jsonl, json" + (" or a folder of classes" if takes_folders else "")
        raise InputError(f"{where}: {config.path}: a {kind} source has no rows for task {task}; give {known}")
    refuse_settings(config, _known_settings(kind, task), where, f"this {kind} source of task {task}")
    names = read_label_names(config.label_names) if config.label_names else {}
    if kind == "folder":
        root = existing_folder(config.path)
        folders = ClassFolders(root)
        folders.account.read = 0  # the rows are counted as they are packed
        return TaskRows(_folder_rows(folders, names), root, root, folders.account)
    path = existing_file(config.path)
    root = place(config.image_root) if config.image_root else path.parent
    columns = _Columns.of(task, config, data)
    needed = columns.pictures | dict([columns.sentence] if columns.sentence else [])
    in_json = kind in ("jsonl", "json")
    # then `answers` may stand for `answer`
    several = in_json and TASKS[task].several_answers and not config.label_key
    if not several:
        needed |= dict([columns.label])
    account = Account(path)
    if in_json:
        rows = jsonl_rows(path, needed, account)
    else:
        rows = table_rows(path, needed, config.separator or data.separator, account)
    return TaskRows(_all_packed(rows, columns, names, several, account), root, path, account)


def _known_settings(kind: str, task: str) -> set[str]:
    known = {"label_names"}
    if kind != "folder":
        known |= {"image_root", "label_key"}
        known |= set() if TASKS[task].pictures else {"image_key"}
        known |= {"caption_key"} if TASKS[task].reads_text else set()
        known |= set() if kind in ("jsonl", "json") else {"separator"}
    return known


def _folder_rows(folders: ClassFolders, names: Mapping[str, str]) -> Iterator[PackedRow]:
    for index in range(len(folders)):
        sample = folders[index]
        [folder] = sample.captions
        label = names.get(folder, folder.replace("_", " "))
        yield [str(sample.content)], "", label, [label]


def _all_packed(
    rows: Iterable[ListRow], columns: _Columns, names: Mapping[str, str], several: bool, account: Account
) -> Iterator[PackedRow]:
    for where, row in rows:
        try:
            packed = _packed(where, row, columns, names, several)
        except InputError as error:
            account.refuse(str(error))
        else:
            yield packed


def _packed(where: str, row: dict[str, Any], columns: _Columns, names: Mapping[str, str], several: bool) -> PackedRow:
    """A list's row as TaskRows keeps it."""
    paths = [_text(row, column, where) for column in columns.pictures]
    sentence = _text(row, columns.sentence[0], where) if columns.sentence else ""
    column = "answers" if several and "answers" in row else columns.label[0]
    if isinstance(row.get(column), list):
        if not several:
            raise InputError(f"{where}: {column} is a list; a row has one label")
        try:
            answers = _commonest_first(row[column])
        except ValueError as error:
            raise InputError(f"{where}: {column}: {error}") from error
        if not answers:
            raise InputError(f"{where} has no {column}")
    elif several and column not in row:
        raise InputError(f"{where} has neither answer nor answers, of which task vqa needs one")
    else:
        answers = [_text(row, column, where)]
    answers = [names.get(answer, answer) for answer in (known_label(answer, names) for answer in answers)]
    return paths, sentence, answers[0], answers


def _text(row: dict[str, Any], column: str, where: str) -> str:
    try:
        text = as_text(row[column])
    except ValueError as error:
        raise InputError(f"{where}: {column}: {error}") from error
    if not text:
        raise InputError(f"{where} has no {column}")
    return text


def _commonest_first(answers: Sequence[Any]) -> list[str]:
    """All answers, those given most often first; VQA-v2's annotations have each under the key `answer`."""
    texts = [as_text(item.get("answer") if isinstance(item, dict) else item) for item in answers]
    return [text for text, count in Counter(filter(None, texts)).most_common() for _ in range(count)]
