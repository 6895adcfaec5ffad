"""The main module of the process that reads an LMDB."""

from lit_mbldm.data.sources.lmdb_reader import Answers
from lit_mbldm.parallel.worker_process import serve

if __name__ == "__main__":
    serve(Answers())
