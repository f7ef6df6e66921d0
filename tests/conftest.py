import atexit
import os
import shutil
import tempfile

os.environ.setdefault("GLOG_v", "3")  # MindSpore's log: errors only
if "MINDONE_COCA_CACHE" not in os.environ:  # a store of compiled graphs for this run alone
    os.environ["MINDONE_COCA_CACHE"] = tempfile.mkdtemp(prefix="coca_test_graphs_")
    atexit.register(shutil.rmtree, os.environ["MINDONE_COCA_CACHE"], ignore_errors=True)
