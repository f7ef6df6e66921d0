"""The report of tools/check_device.py, and its self-test on this CPU."""

import pytest

from tools import check_device


def test_pairs_of_mindspore_and_cann():
    assert check_device.pairing("2.7.2", "8.5.0") == "MindSpore 2.7.2 with CANN 8.5.0: as paired"
    assert check_device.pairing("2.7.2", "8.2.RC1") == "MindSpore 2.7.2 with CANN 8.2.RC1: it wants 8.5"
    assert check_device.pairing("2.10.0", None).endswith("8.2, 8.3, 8.5, 9.0, 9.1; none is found here")
    assert check_device.pairing("2.6.0", "8.1").startswith("MindSpore 2.6.0 is none of those")


def test_versions_are_read_where_the_vendor_keeps_them(tmp_path):
    assert check_device.cann_version({"ASCEND_TOOLKIT_HOME": str(tmp_path)}) is None
    info = tmp_path / "aarch64-linux" / "ascend_toolkit_install.info"
    info.parent.mkdir()
    info.write_text("package_name=Ascend-cann-toolkit\nversion=8.5.0\narch=aarch64\n")
    assert check_device.cann_version({"ASCEND_TOOLKIT_HOME": str(tmp_path)}) == "8.5.0"
    (tmp_path / "version.info").write_text("Version=25.5.0\nascendhal_version=7\n")
    assert check_device.driver_version(tmp_path / "version.info") == "25.5.0"
    assert check_device.driver_version(tmp_path / "none") is None


def test_what_differs_is_said():
    right = dict(check_device.STORED)
    assert list(check_device.compare(check_device.CAPTION, right, check_device.FULL)) == []
    for name in right:
        [line] = check_device.compare(check_device.CAPTION, {**right, name: right[name] * 1.01}, check_device.FULL)
        assert line.startswith(f"{name} is ")
        [line] = check_device.compare(check_device.CAPTION, {**right, name: float("nan")}, check_device.HALF)
    [line] = check_device.compare("a cat", right, check_device.FULL)
    assert line.startswith("the caption is 'a cat'")


@pytest.mark.graphs
def test_the_self_test_passes_here(capsys):
    assert check_device.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"- {name}"
        for name in ("system", "packages", "device", "driver", "pairing", "launcher", "environment", "self-test")
    ]
    assert lines[-1].startswith("- self-test: as on a CPU (")
