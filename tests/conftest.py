import os

os.environ.setdefault("GLOG_v", "3")  # MindSpore's log: errors only
